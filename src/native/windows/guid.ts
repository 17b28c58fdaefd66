/** GUIDs as text, `d8d2b5a0-0f8a-4f7e-9d6b-0123456789ab`, and as the struct that calls take. */

import { CimletError } from '../../errors.ts';

export interface GuidValue {
  Data1: number;
  Data2: number;
  Data3: number;
  Data4: Uint8Array;
}

const PATTERN = /^\{?([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})\}?$/i;

/** With or without braces. Throws `failed-precondition` for what is no GUID. */
export function guidValue(text: string): GuidValue {
  const [, data1 = '', data2 = '', data3 = '', high = '', low = ''] = PATTERN.exec(text) ?? [];
  if (data1 === '') throw new CimletError('failed-precondition', `${JSON.stringify(text)} is not a GUID`);
  return {
    Data1: Number.parseInt(data1, 16),
    Data2: Number.parseInt(data2, 16),
    Data3: Number.parseInt(data3, 16),
    Data4: new Uint8Array(Buffer.from(high + low, 'hex')),
  };
}

/** Lower case, without braces. */
export function guidText({ Data1, Data2, Data3, Data4 }: GuidValue): string {
  const bytes = Buffer.from(Data4);
  const parts = [hex(Data1, 8), hex(Data2, 4), hex(Data3, 4)];
  return [...parts, bytes.toString('hex', 0, 2), bytes.toString('hex', 2)].join('-');
}

/** The path of the volume that is mounted under a GUID: `\\?\Volume{guid}\`. */
export function volumePath(guid: string): string {
  return `\\\\?\\Volume{${guidText(guidValue(guid))}}\\`;
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}
