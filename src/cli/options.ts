/** Flags that several commands share, and the arguments they are parsed into. Nothing here touches the machine. */

import { resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { CimletError, isErrorCode } from '../errors.ts';
import { parseDuration, parseSize } from '../manifests/quantities.ts';
import type { ResourceKey } from '../manifests/resources.ts';
import type { ConcurrencyConfig } from '../manifests/types.gen.ts';
import type { SourceKey } from '../state/records.ts';
import { OUTPUT_FORMATS, type OutputFormat } from './output.ts';
import type { ConfiguredRegistry } from './registry-settings.ts';

export type HostChoice = 'auto' | 'windows' | 'embedded';

/** Understood by every command, before or after its name. */
export interface GlobalOptions {
  root: string;
  host: HostChoice;
  output: OutputFormat;
  color: boolean;
  registryConfig?: string;
  /** `registry` of cimlet.yaml, for commands that read one. */
  configuredRegistry?: ConfiguredRegistry | undefined;
  /** `concurrency` of it. */
  concurrency?: ConcurrencyConfig | undefined;
}

export interface ManifestOptions {
  filename: string[];
}

export function addGlobalOptions(program: Command, defaultRoot: string): void {
  program
    .addOption(
      new Option('--root <directory>', 'where state and layers are kept')
        .default(defaultRoot)
        .env('CIMLET_ROOT')
        .argParser(parseRoot),
    )
    .addOption(
      new Option('--host <host>', 'which host does the work')
        .choices(['auto', 'windows', 'embedded'])
        .default('auto'),
    )
    .addOption(
      new Option('-o, --output <format>', 'how results are printed')
        .choices([...OUTPUT_FORMATS])
        .default('text')
        .argParser((value) => value), // Checked below: a command may take a file there.
    )
    .addOption(
      new Option('--registry-config <directory>', 'mirrors and certificates of registries, as certs.d')
        .env('CIMLET_REGISTRY_CONFIG')
        .argParser((text) => resolve(text)),
    )
    .option('--no-color', 'print without colour (so does NO_COLOR=1)')
    .hook('preAction', (_program, command) => checkOutput(program, command));
}

/** `-o` is a format, except for a command that declares an `--output` of its own. */
function checkOutput(program: Command, command: Command): void {
  const { output } = program.opts<{ output: string }>();
  const takesFile = command.options.some(({ long }) => long === '--output');
  if (takesFile || OUTPUT_FORMATS.some((format) => format === output)) return;
  command.error(
    `error: option '-o, --output <format>' argument '${output}' is invalid. Allowed choices are ${OUTPUT_FORMATS.join(', ')}.`,
    { code: 'commander.invalidArgument' },
  );
}

/** An empty text, as an unset variable leaves it, would be the current directory. */
function parseRoot(text: string): string {
  if (text === '') throw new InvalidArgumentError('Name a directory.');
  return resolve(text);
}

export function filenameOption(): Option {
  return new Option(
    '-f, --filename <path>',
    'manifest file, folder, or - for standard input; may be repeated',
  )
    .default([], 'none')
    .argParser((value, previous: string[]) => [...previous, value]);
}

export function targetOption(): Option {
  return new Option('--target <kind/name>', 'only this resource and what it needs; may be repeated')
    .default([], 'all')
    .argParser((value, previous: ResourceKey[]) => [...previous, parseTarget(value)]);
}

/** What `-f` named; an error with an example when it named nothing. */
export function requireFilenames(options: ManifestOptions, command: string): string[] {
  if (options.filename.length > 0) return options.filename;
  throw new CimletError('failed-precondition', `${command}: no manifests named`, {
    hint: `name a file or a folder with -f, for example: cimlet ${command} -f manifests/`,
  });
}

const KINDS = { image: 'Image', chain: 'LayerChain', layerchain: 'LayerChain', mount: 'Mount' } as const;

/** `image/x`, `Mount/x`, `mounts/x`, `chain/x` -> the resource's key. */
export function parseResourceKey(text: string): ResourceKey | undefined {
  const slash = text.indexOf('/');
  const word = text.slice(0, Math.max(0, slash)).toLowerCase().replace(/s$/, '');
  const name = text.slice(slash + 1);
  if (slash < 1 || name === '' || !Object.hasOwn(KINDS, word)) return undefined;
  return `${KINDS[word as keyof typeof KINDS]}/${name}`;
}

export function parseTarget(text: string): ResourceKey {
  const key = parseResourceKey(text);
  if (key !== undefined) return key;
  throw new InvalidArgumentError('Name a resource as image/NAME, layerchain/NAME or mount/NAME.');
}

/** A resource, or a source of the agent: `source/x`. */
export function parseSubject(text: string): ResourceKey | SourceKey {
  const [, source] = /^sources?\/(.+)$/i.exec(text) ?? [];
  const key = source === undefined ? parseResourceKey(text) : (`Source/${source}` as const);
  if (key !== undefined) return key;
  throw new InvalidArgumentError('Name it as image/NAME, layerchain/NAME, mount/NAME or source/NAME.');
}

/** Milliseconds. */
export function parseDurationOption(text: string): number {
  return parsed(() => parseDuration(text), 'Name a duration such as 24h or 30m.');
}

/** For what is handed on as it was written. */
export function checkDurationOption(text: string): string {
  parseDurationOption(text);
  return text;
}

/** Bytes. */
export function parseSizeOption(text: string): number {
  return parsed(() => parseSize(text), 'Name a size such as 512Mi or 20Gi.');
}

function parsed(parse: () => number, message: string): number {
  try {
    return parse();
  } catch (error) {
    if (isErrorCode(error, 'invalid-manifest')) throw new InvalidArgumentError(message);
    throw error;
  }
}
