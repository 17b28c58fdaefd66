/** Secrets: cimlet.yaml names the file or the environment variable that holds one, never the secret itself. */

import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { CimletError, classify } from '../errors.ts';

/** Reads it anew each time, so that it may be replaced at any time. */
export type Secret = () => Promise<string>;

/** Exactly one of them; a file relative to the folder of cimlet.yaml. */
export interface SecretPlace {
  file?: string | undefined;
  variable?: string | undefined;
}

/**
 * The first line of the file, or the variable. `what` names it in errors: `not-found` when there is none, and what
 * reading a file may throw.
 */
export async function readSecret(
  what: string,
  { file = '', variable }: SecretPlace,
  baseDirectory: string,
): Promise<string> {
  const place = variable === undefined ? `file ${file}` : `environment variable ${variable}`;
  try {
    const text =
      variable === undefined
        ? await readFile(resolve(baseDirectory, file), 'utf8')
        : (process.env[variable] ?? '');
    const secret = text.split(/\r?\n/, 1)[0] ?? '';
    if (secret === '') throw new CimletError('not-found', `read ${what}: ${place} holds none`);
    return secret;
  } catch (error) {
    throw classify(error, `read ${what} from ${place}`);
  }
}

/** For those who mustn't know where it is: `unavailable`, with what happened as the cause. */
export async function readQuietly(secret: Secret, what: string): Promise<string> {
  try {
    return await secret();
  } catch (error) {
    throw new CimletError('unavailable', `${what} can't be read`, { cause: error });
  }
}
