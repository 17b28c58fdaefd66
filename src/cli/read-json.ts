/** The files that one command writes and another reads: observed states and saved plans. */

import { readFile } from 'node:fs/promises';
import { CimletError, classify } from '../errors.ts';
import type { HostState } from '../hosts/host.ts';
import type { SavedPlan } from '../reconciler/types.ts';

/** What `observe -o json` printed, on this machine or another. */
export async function readHostState(file: string): Promise<HostState> {
  const data = await readVersioned(file, 'an observed state', 'cimlet observe -o json writes one');
  requireMembers(file, 'an observed state', data, {
    host: isObject,
    root: isString,
    capabilities: isObject,
    layers: Array.isArray,
    mounts: Array.isArray,
    paths: isObject,
    leftovers: Array.isArray,
  });
  return data as unknown as HostState;
}

/** What `plan --out` wrote. Whether it still fits is another question. */
export async function readSavedPlan(file: string): Promise<SavedPlan> {
  const data = await readVersioned(file, 'a saved plan', 'cimlet plan --out FILE writes one');
  requireMembers(file, 'a saved plan', data, { plan: isObject, inputs: isObject, fingerprint: isString });
  const { plan, inputs } = data as { plan: Record<string, unknown>; inputs: Record<string, unknown> };
  requireMembers(file, 'a saved plan', plan, { host: isObject, actions: isArrayOfObjects });
  requireMembers(file, 'a saved plan', inputs, {
    arguments: Array.isArray,
    files: isArrayOfObjects,
    targets: Array.isArray,
  });
  return data as unknown as SavedPlan;
}

async function readVersioned(file: string, what: string, hint: string): Promise<Record<string, unknown>> {
  let data: unknown;
  try {
    data = JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    if (error instanceof SyntaxError) {
      throw new CimletError('corrupt', `read ${file}: not JSON: ${error.message}`, { hint, cause: error });
    }
    throw classify(error, `read ${file}`);
  }
  if (!isObject(data) || data.formatVersion !== 1) {
    throw new CimletError('corrupt', `read ${file}: not ${what} of format version 1`, { hint });
  }
  return data;
}

function requireMembers(
  file: string,
  what: string,
  data: Record<string, unknown>,
  members: Record<string, (value: unknown) => boolean>,
): void {
  for (const [name, suits] of Object.entries(members)) {
    if (suits(data[name])) continue;
    throw new CimletError('corrupt', `read ${file}: not ${what}: ${name} is missing or of the wrong type`);
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isString(value: unknown): boolean {
  return typeof value === 'string';
}

function isArrayOfObjects(value: unknown): boolean {
  return Array.isArray(value) && value.every(isObject);
}
