/** Where a JSON text goes wrong: JSON.parse tells it only for some errors. Source: RFC 8259. */

const TOKEN =
  /[ \t\r\n]*(?:([{}[\],:])|("(?:[ !#-[\]-\uffff]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")|(true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])))/y;

type Expected = 'value' | 'firstItem' | 'firstKey' | 'key' | 'colon' | 'separator' | 'end';

/** 1-based line and column of the first token that can't stand where it does, or of the end of the text. */
export function locateJsonError(text: string): { line: number; column: number } {
  const before = text.slice(0, errorOffset(text));
  const lineStart = before.lastIndexOf('\n') + 1;
  return { line: before.split('\n').length, column: before.length - lineStart + 1 };
}

function errorOffset(text: string): number {
  const open: ('{' | '[')[] = [];
  let expected: Expected = 'value';
  let offset = 0;
  for (;;) {
    TOKEN.lastIndex = offset;
    const match = TOKEN.exec(text);
    const tokenStart = offset + leadingSpace(text, offset);
    if (match === null) return tokenStart;
    const [, punctuation, string] = match;
    const next = step(expected, punctuation, string !== undefined, open);
    if (next === undefined) return tokenStart;
    expected = next;
    offset = TOKEN.lastIndex;
  }
}

function step(
  expected: Expected,
  punctuation: string | undefined,
  isString: boolean,
  open: ('{' | '[')[],
): Expected | undefined {
  const afterValue = (): Expected => (open.length === 0 ? 'end' : 'separator');
  if (expected === 'value' || expected === 'firstItem') {
    if (punctuation === undefined) return afterValue();
    if (punctuation === '{' || punctuation === '[') {
      open.push(punctuation);
      return punctuation === '{' ? 'firstKey' : 'firstItem';
    }
  }
  if (expected === 'key' || expected === 'firstKey') {
    if (isString) return 'colon';
  }
  if (expected === 'colon') return punctuation === ':' ? 'value' : undefined;
  if (expected === 'separator' && punctuation === ',') return open.at(-1) === '{' ? 'key' : 'value';
  const closes =
    (punctuation === '}' && (expected === 'firstKey' || (expected === 'separator' && open.at(-1) === '{'))) ||
    (punctuation === ']' && (expected === 'firstItem' || (expected === 'separator' && open.at(-1) === '[')));
  if (!closes) return undefined;
  open.pop();
  return afterValue();
}

function leadingSpace(text: string, offset: number): number {
  let length = 0;
  while (' \t\r\n'.includes(text.charAt(offset + length)) && offset + length < text.length) length++;
  return length;
}
