/** Data for machines: the only thing on standard output when `-o json` or `-o yaml` is asked for. */

import { Document, visit } from 'yaml';

export type DataFormat = 'json' | 'yaml';
export const OUTPUT_FORMATS = ['text', 'wide', 'json', 'yaml'] as const;
export type OutputFormat = (typeof OUTPUT_FORMATS)[number];

export function isDataFormat(format: OutputFormat): format is DataFormat {
  return format === 'json' || format === 'yaml';
}

// What JSON and YAML let through unescaped, and a terminal would obey: DEL, C1, bidirectional and line separators.
const UNSAFE = /[\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;

/** The data as one JSON or YAML document, without a trailing newline. bigint becomes a decimal string. */
export function formatData(data: unknown, format: DataFormat): string {
  const json = JSON.stringify(data, (_key, value) => (typeof value === 'bigint' ? String(value) : value), 2);
  if (format === 'json') return escapeUnsafe(json);
  const document = new Document(JSON.parse(json), { aliasDuplicateObjects: false });
  // Escapes mean something only between double quotes.
  visit(document, {
    Scalar(_key, node) {
      if (typeof node.value === 'string' && node.value.search(UNSAFE) >= 0) node.type = 'QUOTE_DOUBLE';
    },
  });
  return escapeUnsafe(document.toString({ lineWidth: 0, blockQuote: false }).replace(/\n$/, ''));
}

/** One of many: JSON on a line of its own, YAML after a `---`. */
export function formatStreamed(data: unknown, format: DataFormat): string {
  return format === 'json' ? escapeUnsafe(JSON.stringify(data)) : `---\n${formatData(data, format)}`;
}

function escapeUnsafe(text: string): string {
  return text.replace(UNSAFE, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
