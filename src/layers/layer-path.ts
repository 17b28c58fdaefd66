/**
 * Names a Windows layer may use. Source: "Naming Files, Paths, and Namespaces" (Microsoft Learn); limits of NTFS and
 * of CIMs. What Windows could not open again by its plain path is refused, not renamed.
 */

import { quoteName } from '../tar/tar-format.ts';

const MAX_NAME = 255;
const MAX_PATH = 32_767;

/** The only top-level directories of a Windows layer. */
export const LAYER_ROOTS = ['Files', 'Hives', 'UtilityVM'] as const;

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const FORBIDDEN = /[<>:"|?*\\\u0000-\u001f]/;
const TRAILING = /[. ](?=\/|$)/;
const DEVICE = /(?:^|\/)(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[1-9¹²³]) *(?:\.[^/]*)?(?=\/|$)/i;

/**
 * Brings a tar path to the form `a/b/c`: no leading `./`, no empty or `.` components, no trailing slash; '' is the
 * layer itself. Only the form is checked here. A failure is `{fault}`.
 */
export function normalizePath(name: string): string | { fault: string } {
  if (name.startsWith('/')) return { fault: 'the path is absolute' };
  if (!/(?:^|\/)(?:\.{0,2}(?:\/|$))/.test(name)) return name;
  const components = name.split('/').filter((component) => component !== '' && component !== '.');
  if (components.includes('..')) return { fault: "the path has a '..' component" };
  return components.join('/');
}

/** Says why Windows can't hold a normalised path, undefined when it can. */
export function pathFault(path: string): string | undefined {
  if (path.length > MAX_PATH) return `the path has ${path.length} UTF-16 units; at most ${MAX_PATH} fit`;
  const character = FORBIDDEN.exec(path)?.[0];
  if (character !== undefined) return `Windows allows no ${quoteName(character)} in names`;
  if (TRAILING.test(path)) return 'Windows allows no name that ends with a dot or a space';
  const device = DEVICE.exec(path)?.[0];
  if (device !== undefined)
    return `${quoteName(device.replace('/', ''))} is a reserved device name on Windows`;
  return longNameFault(path);
}

function longNameFault(path: string): string | undefined {
  if (path.length <= MAX_NAME) return undefined;
  const long = path.split('/').find((component) => component.length > MAX_NAME);
  return long === undefined ? undefined : `a name has ${long.length} UTF-16 units; at most ${MAX_NAME} fit`;
}

/** Says why a normalised path doesn't belong into a Windows layer, undefined when it does. */
export function rootFault(path: string): string | undefined {
  const slash = path.indexOf('/');
  const root = slash < 0 ? path : path.slice(0, slash);
  if ((LAYER_ROOTS as readonly string[]).includes(root)) return undefined;
  return `a Windows layer holds only ${LAYER_ROOTS.map((name) => `${name}/`).join(', ')}; this is ${quoteName(root)}`;
}

/** Says why a name can't be an alternate stream's, undefined when it can. */
export function streamNameFault(name: string): string | undefined {
  if (name === '') return 'the alternate stream has no name';
  if (name.length > MAX_NAME)
    return `the stream name has ${name.length} UTF-16 units; at most ${MAX_NAME} fit`;
  return /[\\/:\0]/.test(name) ? 'a stream name has no slash, backslash, colon or NUL' : undefined;
}

/** `a/b/c` -> [`a/b`, `c`]; the parent of a top-level name is ''. */
export function splitPath(path: string): [parent: string, name: string] {
  const slash = path.lastIndexOf('/');
  return slash < 0 ? ['', path] : [path.slice(0, slash), path.slice(slash + 1)];
}
