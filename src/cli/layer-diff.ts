/** `cimlet layer diff` */

import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { CimletError, classify } from '../errors.ts';
import type { DiffId, EffectContext, Host } from '../hosts/host.ts';
import { Snapshotter } from '../snapshots/snapshotter.ts';
import type { State } from '../state/state.ts';
import type { CliContext } from './context.ts';
import { carryOut } from './layer.ts';
import type { GlobalOptions } from './options.ts';
import { withReader } from './session.ts';
import { formatBytes, printable } from './text.ts';

interface DiffOptions extends GlobalOptions {
  parent?: string;
}

export function addDiff(layer: Command, context: CliContext): void {
  layer
    .command('diff')
    .description('write what a snapshot changed as a layer tar, and print its digest')
    .argument('<snapshot>', 'name of a snapshot, or mount/NAME for what was written to a Mount')
    .option('-o, --output <file>', 'the tar to write; one that is there is replaced')
    .option(
      '--parent <name>',
      "what it is compared with: its own parent, '' for nothing; anything else is refused",
    )
    .action(async (name: string, _options, command: Command) => {
      const options = command.optsWithGlobals<DiffOptions>();
      if (command.getOptionValueSourceWithGlobals('output') !== 'cli')
        throw new CimletError('failed-precondition', 'layer diff: no file named', {
          hint: `name the tar with -o, for example: cimlet layer diff ${name} -o layer.tar`,
        });
      const file = resolve(options.output);
      await withReader(context, options, async ({ state }) => {
        const host = await context.services.openHost(options.host, options.root);
        const { diffId, bytes } = await carryOut(context, (effect) =>
          writeDiff(host, state, name, options.parent, file, effect),
        );
        context.terminal.print(printable(`Wrote ${file}: ${formatBytes(bytes)}`));
        // Uncompressed, so that both are the same.
        context.terminal.print([`digest   ${diffId}`, `diff ID  ${diffId}`]);
      });
    });
}

/** A Mount's snapshot is nobody's but the Mount's: the tree of names doesn't have it. */
async function writeDiff(
  host: Host,
  state: State,
  name: string,
  parent: string | undefined,
  file: string,
  context: EffectContext,
): Promise<{ diffId: DiffId; bytes: number }> {
  if (!name.startsWith('mount/') || state.names.get(name) !== undefined)
    return new Snapshotter(host, state).diff(name, parent, file, context);
  const diffId = await host.exportSnapshot(name, file, context);
  try {
    return { diffId, bytes: (await stat(file)).size };
  } catch (error) {
    throw classify(error, `look at ${file}`);
  }
}
