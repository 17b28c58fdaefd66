/** `cimlet gc` */

import { existsSync } from 'node:fs';
import { InvalidArgumentError, Option } from 'commander';
import type { GarbagePolicy } from '../images/garbage.ts';
import { collectGarbage, type FoundGarbage, lookForGarbage } from '../reconciler/collect-garbage.ts';
import type { AddCommand } from './context.ts';
import { type GlobalOptions, parseDurationOption, parseSizeOption } from './options.ts';
import { formatData, isDataFormat } from './output.ts';
import { renderError } from './render-error.ts';
import { type Session, withReader, withWriter } from './session.ts';
import { interruptible } from './signals.ts';
import { formatBytes, plural, printable, shortenDigests } from './text.ts';

const HELP = `
Removes layers that no resource needs, images that none was made of, and blobs
that no image has. Images loaded or copied by hand stay until image rm.
A running agent does this by itself, as gc of cimlet.yaml says.

Examples:
  cimlet gc --dry-run
  cimlet gc --min-age 0s
  cimlet gc --keep-storage 20Gi`;

interface GcOptions extends GlobalOptions {
  dryRun?: boolean;
  minAge: number;
  keepStorage?: number;
  highWater: number;
  lowWater: number;
}

export const addGc: AddCommand = (program, context) => {
  const { terminal } = context;
  program
    .command('gc')
    .description('remove layers, images and blobs that nothing needs')
    .option('--dry-run', 'show what would be removed, and remove nothing')
    .addOption(
      new Option('--min-age <duration>', 'how long something must have been unused')
        .argParser(parseDurationOption)
        .default(parseDurationOption('24h'), '24h'),
    )
    .option('--keep-storage <size>', 'keep unused images while all take no more than this', parseSizeOption)
    .option('--high-water <percent>', 'with the disk fuller than this, age does not matter', percent, 85)
    .option('--low-water <percent>', 'until it is down at this', percent, 80)
    .addHelpText('after', HELP)
    .action(async (_options, command) => {
      const options = command.optsWithGlobals() as GcOptions;
      const policy: GarbagePolicy = {
        minAgeMs: options.minAge,
        keepBytes: options.keepStorage,
        highPercent: options.highWater,
        lowPercent: Math.min(options.lowWater, options.highWater),
      };
      const work = async ({ engine, state, images: { store } }: Session) =>
        interruptible(context, async (signal) => {
          const services = { engine, state, store, root: options.root, policy };
          const found = await lookForGarbage(services, signal);
          if (!options.dryRun) {
            const result = await collectGarbage(services, found, { signal });
            for (const { error } of result.failed)
              terminal.printError(renderError(error, terminal.paintError, context.debug));
            if (result.failed.length > 0) context.exitCode = 1;
          }
          return found;
        });
      // A writer would make the root.
      const isDry = options.dryRun === true || !existsSync(options.root);
      const found = isDry
        ? await withReader(context, options, work)
        : await withWriter(context, options, 'gc', work);
      if (isDataFormat(options.output)) terminal.print(formatData(dataOf(found), options.output));
      else terminal.print(linesOf(found, options.dryRun === true));
    });
};

interface Removed {
  /** `Image`, `Blob`, or what a plan calls it. */
  kind: string;
  name: string;
  bytes: number;
  reason: string;
}

function removedBy({ planned, garbage }: FoundGarbage): Removed[] {
  const actions = planned.plan.actions.map(
    ({ kind, name, bytes, reasons }): Removed => ({
      kind,
      name,
      bytes,
      reason: reasons.map(({ message }) => message).join('; '),
    }),
  );
  const images = garbage.images.map(
    ({ image, bytes, reason }): Removed => ({ kind: 'Image', name: image.reference, bytes, reason }),
  );
  const blobs = garbage.blobs.map(
    ({ blob, reason }): Removed => ({
      kind: 'Blob',
      name: (blob.kind === 'blob' ? blob.digest : undefined) ?? blob.path,
      bytes: blob.bytes,
      reason,
    }),
  );
  return [...actions, ...images, ...blobs];
}

function dataOf(found: FoundGarbage): { removed: Removed[]; bytes: number } {
  const removed = removedBy(found);
  return { removed, bytes: freedBy(removed) };
}

/** An image's bytes are its blobs'. */
function freedBy(removed: readonly Removed[]): number {
  return removed.reduce((sum, { kind, bytes }) => sum + (kind === 'Image' ? 0 : bytes), 0);
}

function linesOf(found: FoundGarbage, isDry: boolean): string[] {
  const removed = removedBy(found);
  if (removed.length === 0) return ['Nothing to remove.'];
  const lines = removed.map(({ kind, name, bytes, reason }) =>
    printable(`${kind} ${shortenDigests(name)}, ${formatBytes(bytes)}: ${reason}`),
  );
  const sum = `${plural(removed.length, 'thing')}, ${formatBytes(freedBy(removed))}`;
  return [...lines, isDry ? `Would remove ${sum}.` : `Removed ${sum}.`];
}

function percent(text: string): number {
  const value = Number(text);
  if (/^\d{1,3}$/.test(text) && value >= 1 && value <= 100) return value;
  throw new InvalidArgumentError('Name a percentage from 1 to 100.');
}
