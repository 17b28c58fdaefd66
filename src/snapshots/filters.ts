/**
 * Filters of snapshots, as containerd writes them (pkg/filters): `name==base`, `kind!=view`, `labels.team`, `labels."a.b"~=^x`; joined by commas
 * all must hold. Fields: name, parent, kind, labels.<key>.
 */

import { CimletError } from '../errors.ts';
import type { NamedSnapshot } from '../state/named-snapshots.ts';

export type Filter = (snapshot: NamedSnapshot) => boolean;

const TERM =
  /^(name|parent|kind|labels\.(?:"((?:[^"\\]|\\.)+)"|([^=!~,]+)))(?:(==|!=|~=)("(?:[^"\\]|\\.)*"|[^,]*))?(,|$)/;

/** Throws `invalid-manifest` for what is no filter. */
export function parseFilter(text: string): Filter {
  const terms: Filter[] = [];
  for (let rest = text; rest !== ''; ) {
    const match = TERM.exec(rest);
    if (match === null) throw refuse(text, `at ${JSON.stringify(rest)}`);
    const [whole, field = '', quoted, plain, operator, operand = ''] = match;
    const label = quoted === undefined ? plain : unquote(`"${quoted}"`, text);
    terms.push(termOf(field, label, operator, unquote(operand, text), text));
    rest = rest.slice(whole.length);
  }
  if (terms.length === 0) throw refuse(text, 'it is empty');
  return (snapshot) => terms.every((holds) => holds(snapshot));
}

function termOf(
  field: string,
  label: string | undefined,
  operator: string | undefined,
  operand: string,
  text: string,
): Filter {
  const fieldOf = (snapshot: NamedSnapshot): string | undefined => {
    if (label !== undefined) return snapshot.labels[label];
    if (field === 'parent') return snapshot.parent;
    return field === 'kind' ? snapshot.kind : snapshot.name;
  };
  if (operator === '==') return (snapshot) => fieldOf(snapshot) === operand;
  if (operator === '!=') return (snapshot) => fieldOf(snapshot) !== operand;
  if (operator === undefined) return (snapshot) => (fieldOf(snapshot) ?? '') !== '';
  const pattern = patternOf(operand, text);
  return (snapshot) => pattern.test(fieldOf(snapshot) ?? '');
}

function patternOf(source: string, text: string): RegExp {
  try {
    return new RegExp(source, 'u');
  } catch (error) {
    throw refuse(text, error instanceof Error ? error.message : String(error));
  }
}

function unquote(operand: string, text: string): string {
  if (!operand.startsWith('"')) return operand;
  try {
    return String(JSON.parse(operand));
  } catch {
    throw refuse(text, `${operand} is no quoted text`);
  }
}

function refuse(text: string, why: string): CimletError {
  return new CimletError('invalid-manifest', `filter ${JSON.stringify(text)}: ${why}`, {
    hint: 'for example: name==base, kind==committed, labels.team~=^a',
  });
}
