import { CimletError } from '../errors.ts';
import { MAX_NAME_UNITS, MAX_PATH_UNITS } from './format.ts';

// NUL ends names in Windows' APIs; both slashes separate.
const FORBIDDEN = /[\0/\\]/;

/** What is wrong with a name of a file or stream (UTF-16 units, any but NUL and slashes), or undefined. */
export function nameFault(name: string): string | undefined {
  if (name.length === 0) return 'a name is empty';
  if (name.length > MAX_NAME_UNITS)
    return `a name has ${name.length} UTF-16 units, more than ${MAX_NAME_UNITS}`;
  if (name === '.' || name === '..') return `a name is "${name}"`;
  if (FORBIDDEN.test(name)) return `a name holds NUL, "/" or "\\": ${JSON.stringify(name)}`;
  return undefined;
}

/** Refuses a bad name; `operation` names what was being done and to what. */
export function checkName(operation: string, name: string): void {
  const fault = nameFault(name);
  if (fault !== undefined) throw new CimletError('corrupt', `${operation}: ${fault}`);
}

/** Splits a relative `/`-separated path into checked names; the empty path is the root. */
export function splitPath(operation: string, path: string): string[] {
  if (path === '') return [];
  if (path.length > MAX_PATH_UNITS)
    throw new CimletError(
      'corrupt',
      `${operation}: the path has ${path.length} UTF-16 units, more than ${MAX_PATH_UNITS}`,
    );
  const names = path.split('/');
  for (const name of names) checkName(operation, name);
  return names;
}
