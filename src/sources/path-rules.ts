/**
 * Which paths of a repository can be written on every host, inside the folder they are written to. Source of the
 * rules for Windows: learn.microsoft.com, "Naming Files, Paths, and Namespaces".
 */

const RESERVED = /^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)/i;
/** Also as Windows shortens it. */
const GIT_FOLDER = /^(\.git|git~\d+)$/i;
const LONGEST_NAME = 255;
const LONGEST_PATH = 1024;

/** Why a path with slashes can't be written; undefined when it can. */
export function whyUnwritable(path: string): string | undefined {
  if (Buffer.byteLength(path) > LONGEST_PATH) return 'the path is too long';
  for (const name of path.split('/')) {
    const reason = whyNoName(name);
    if (reason !== undefined) return reason;
  }
  return undefined;
}

function whyNoName(name: string): string | undefined {
  if (name === '' || name === '.' || name === '..') return 'the path has a step that is no name';
  if (name.includes('\ufffd')) return "the name isn't UTF-8";
  if (/[<>:"|?*\\]|\p{Cc}/u.test(name)) return "the name has a character that Windows doesn't have in names";
  if (/[. ]$/.test(name)) return 'Windows has no names that end in a dot or space';
  if (RESERVED.test(name)) return 'the name is a device on Windows';
  if (GIT_FOLDER.test(name)) return "the name is git's own";
  return Buffer.byteLength(name) > LONGEST_NAME ? 'the name is too long' : undefined;
}
