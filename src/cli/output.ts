/** Data for machines: the only thing on standard output when `-o json` or `-o yaml` is asked for. */

import { stringify } from 'yaml';

export type DataFormat = 'json' | 'yaml';
export type OutputFormat = 'text' | 'wide' | DataFormat;

export function isDataFormat(format: OutputFormat): format is DataFormat {
  return format === 'json' || format === 'yaml';
}

/** The data as one JSON or YAML document, without a trailing newline. bigint becomes a decimal string. */
export function formatData(data: unknown, format: DataFormat): string {
  const json = JSON.stringify(data, (_key, value) => (typeof value === 'bigint' ? String(value) : value), 2);
  if (format === 'json') return json;
  return stringify(JSON.parse(json), { lineWidth: 0, aliasDuplicateObjects: false }).trimEnd();
}
