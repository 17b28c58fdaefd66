/** Where a field is in a document: keys and indexes, as a person reads them. */

export type FieldPath = readonly (string | number)[];

/** `spec.layers[1].archive`, `metadata.labels["example.com/team"]`; empty for the whole document. */
export function formatField(path: FieldPath): string {
  let text = '';
  for (const step of path) {
    if (typeof step === 'number') text += `[${step}]`;
    else if (!/^[A-Za-z_][\w-]*$/.test(step)) text += `[${quote(step)}]`;
    else text += text === '' ? step : `.${step}`;
  }
  return text;
}

const LONGEST_QUOTE = 60;

/** A piece of a manifest for a message: on one line, without control characters, not too long. */
export function quote(value: unknown): string {
  return escapeText(JSON.stringify(value) ?? String(value), LONGEST_QUOTE);
}

/** Text of unknown origin on one line, without control characters, at most `longest` characters. */
export function escapeText(text: string, longest: number): string {
  const safe = text.replace(
    // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what must not be shown as they are
    /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]|\p{Surrogate}/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
  return safe.length <= longest ? safe : `${safe.slice(0, longest - 3)}...`;
}
