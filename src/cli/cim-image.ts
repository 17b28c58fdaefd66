/** The image that a subcommand of `cimlet cim` is about. */

import { type Command, InvalidArgumentError } from 'commander';
import type { OpenCimOptions } from '../cim/open-image.ts';
import { type CimReader, openCim } from '../cim/reader.ts';
import { CimletError, isErrorCode } from '../errors.ts';
import type { GlobalOptions } from './options.ts';

export interface ImageOptions extends GlobalOptions {
  source?: string[];
  rootHash?: string;
}

/** A subcommand about one image, which may lie in a container and need the containers it was merged from. */
export function addImageCommand(cim: Command, name: string, description: string): Command {
  return cim
    .command(name)
    .description(description)
    .argument('<file.cim>', 'the image; in a container FILE.bcim/NAME.cim or /dev/X/NAME.cim')
    .option('--source <file>', 'what a merged image was made of, topmost first; repeat it', collect)
    .option('--root-hash <sha256:...>', 'refuse an image that is not sealed with it', parseRootHash);
}

function collect(value: string, earlier: string[] = []): string[] {
  return [...earlier, value];
}

function parseRootHash(text: string): string {
  if (/^sha256:[0-9a-f]{64}$/.test(text)) return text;
  throw new InvalidArgumentError('A root hash is sha256: and 64 hexadecimal digits in lower case.');
}

export function openOptions({ source, rootHash }: ImageOptions): OpenCimOptions {
  return { sources: source, rootHash };
}

export async function withCim(
  file: string,
  options: ImageOptions,
  use: (reader: CimReader) => Promise<void>,
): Promise<void> {
  try {
    const reader = openCim(file, openOptions(options));
    try {
      await use(reader);
    } finally {
      reader.close();
    }
  } catch (error) {
    if (!isErrorCode(error, 'corrupt') || error.hint !== undefined) throw error;
    const hint = `cimlet cim verify ${file} lists all that is damaged; cimlet apply builds a sealed layer of a chain anew`;
    throw new CimletError('corrupt', error.message, { hint, cause: error });
  }
}
