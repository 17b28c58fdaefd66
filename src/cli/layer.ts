/** `cimlet layer export|import|remove|diff` */

import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { CimletError } from '../errors.ts';
import type { EffectContext, LayerFormat, LayerRef } from '../hosts/host.ts';
import { chainIds } from '../hosts/identity.ts';
import { importLayer, LAYER_FORMATS } from '../reconciler/import-layer.ts';
import type { Status } from '../reconciler/status.ts';
import { itemsOf } from '../server/items.ts';
import type { ImageFacts } from '../state/records.ts';
import type { AddCommand, CliContext } from './context.ts';
import { parseWanted, selectItems } from './find-status.ts';
import { addDiff } from './layer-diff.ts';
import type { GlobalOptions } from './options.ts';
import { formatData, isDataFormat } from './output.ts';
import { withReader, withWriter } from './session.ts';
import { interruptible } from './signals.ts';
import { formatBytes, plural, printable, shortenDigests } from './text.ts';

const HELP = `
A layer is named by its snapshot, or by the chain or mount that it is on top
of: chain/app, snapshot/1a2b3c4d5e6f.

Examples:
  cimlet layer export chain/app -o layer.tar
  cimlet layer import layer.tar.gz --parent chain/base
  cimlet layer import base.tar --seal
  cimlet layer remove snapshot/1a2b3c4d5e6f
  cimlet layer diff mount/work -o changes.tar`;

export const addLayer: AddCommand = (program, context) => {
  const layer = program
    .command('layer')
    .description('move single layers in and out as tar files')
    .addHelpText('after', HELP);
  addExport(layer, context);
  addImport(layer, context);
  addRemove(layer, context);
  addDiff(layer, context);
};

interface LayerOptions extends GlobalOptions {
  format?: LayerFormat;
}

function formatOption(description: string): Option {
  return new Option('--format <format>', description).choices(LAYER_FORMATS);
}

function addExport(layer: Command, context: CliContext): void {
  layer
    .command('export')
    .description('write one layer, without those below it, as a layer tar')
    .argument('<layer>', 'chain/NAME for its topmost layer, or snapshot/CHAIN-ID')
    .option('-o, --output <file>', 'the tar to write; one that is there is replaced')
    .addOption(formatOption('which, when there are several'))
    .action(async (name: string, _options, command: Command) => {
      const options = command.optsWithGlobals<LayerOptions>();
      if (command.getOptionValueSourceWithGlobals('output') !== 'cli') {
        throw new CimletError('failed-precondition', 'layer export: no file named', {
          hint: `name the tar with -o, for example: cimlet layer export ${name} -o layer.tar`,
        });
      }
      const file = resolve(options.output);
      await withReader(context, options, async ({ engine }) => {
        const host = await context.services.openHost(options.host, options.root);
        const ref = await carryOut(context, async (effect) => {
          const found = findLayer(await engine.status(effect.signal), name, options.format);
          await host.exportLayer(found, file, effect);
          return found;
        });
        context.terminal.print(
          printable(`Wrote ${file}: ${ref.format} layer ${shortenDigests(ref.chainId)}.`),
        );
      });
    });
}

function addImport(layer: Command, context: CliContext): void {
  const { terminal } = context;
  layer
    .command('import')
    .description('commit a layer tar as a layer, which no plan removes before a chain uses it')
    .argument('<file>', 'the tar: plain, gzip or zstd')
    .option('--parent <layer>', 'chain/NAME or snapshot/CHAIN-ID to put it on; none for a base layer')
    .addOption(formatOption('how it is stored; default: as its parent, or what the host prefers'))
    .option('--seal', 'seal it, so that it has a root hash; BlockCIM only')
    .action(async (file: string, _options, command: Command) => {
      const options = command.optsWithGlobals<LayerOptions & { parent?: string; seal?: boolean }>();
      await withWriter(context, options, 'layer import', async ({ engine }) => {
        const host = await context.services.openHost(options.host, options.root);
        const layer = await carryOut(context, async (effect) => {
          const { parent: name, format, seal } = options;
          const parent =
            name === undefined ? undefined : findLayer(await engine.status(effect.signal), name, format);
          return importLayer(host, { file: resolve(file), parent, format, seal }, effect);
        });
        if (isDataFormat(options.output)) terminal.print(formatData(layer, options.output));
        else
          terminal.print(
            `Imported ${layer.format} layer ${layer.chainId}: ${formatBytes(layer.bytes)}, ${plural(layer.files, 'file')}${layer.rootHash === undefined ? '' : `, root hash ${layer.rootHash}`}.`,
          );
      });
    });
}

function addRemove(layer: Command, context: CliContext): void {
  layer
    .command('remove')
    .description('remove a layer that was imported and that no chain, mount or other layer uses')
    .argument('<layer>', 'snapshot/CHAIN-ID')
    .addOption(formatOption('which, when there are several'))
    .action(async (name: string, _options, command: Command) => {
      const options = command.optsWithGlobals<LayerOptions>();
      await withWriter(context, options, 'layer remove', async ({ engine }) => {
        const host = await context.services.openHost(options.host, options.root);
        const ref = await carryOut(context, async (effect) => {
          const status = await engine.status(effect.signal);
          const found = findLayer(status, name, options.format);
          refuseUsed(found, status);
          await host.removeLayer(found, effect);
          return found;
        });
        context.terminal.print(`Removed ${ref.format} layer ${ref.chainId}.`);
      });
    });
}

/** What the inventory knows is a plan's to remove. */
function refuseUsed({ chainId, format }: LayerRef, { snapshots }: Status): void {
  const known = snapshots.find((each) => each.chainId === chainId && each.format === format);
  if (known === undefined || known.state === 'unrecorded') return;
  if (known.name !== undefined)
    throw new CimletError(
      'failed-precondition',
      `remove layer ${chainId}: it is the snapshot ${known.name}`,
      {
        hint: `cimlet snapshot rm ${known.name}`,
      },
    );
  const user = known.neededBy === undefined ? '' : ` for ${known.neededBy}`;
  throw new CimletError('failed-precondition', `remove layer ${chainId}: it was made${user}`, {
    hint: 'change the manifests and apply, or delete the resource: the layer goes when nothing needs it',
  });
}

/** The topmost layer of an image, in the first format that it is there in: they all hold the same. */
function layerOfImage(
  { snapshots }: Status,
  { name, layers }: ImageFacts & { name: string },
  format: LayerFormat | undefined,
): LayerRef {
  const chainId = chainIds(layers.map(({ diffId }) => diffId)).at(-1);
  const found = LAYER_FORMATS.filter((each) => format === undefined || each === format).find((each) =>
    snapshots.some(
      (layer) => layer.chainId === chainId && layer.format === each && layer.state !== 'missing',
    ),
  );
  if (chainId !== undefined && found !== undefined) return { chainId, format: found };
  throw new CimletError(
    'not-found',
    `no layers were made of image/${name}${format === undefined ? '' : ` in ${format}`}`,
    {
      hint: 'apply a LayerChain or a Mount of it first; cimlet image save copies images as they came',
    },
  );
}

/** The layer that a name stands for. Throws `not-found`, and `failed-precondition` when there are several. */
export function findLayer(status: Status, name: string, format: LayerFormat | undefined): LayerRef {
  const wanted = name.includes('/') ? parseWanted(name, undefined) : parseWanted('snapshot', name);
  const { resources, snapshots } = selectItems(itemsOf(status), wanted);
  const refs = [
    ...resources.flatMap(({ name: image, status: { chain, image: found } }): LayerRef[] => {
      if (found !== undefined) return [layerOfImage(status, { name: image, ...found }, format)];
      const chainId = chain?.chainIds.at(-1);
      return chain === undefined || chainId === undefined ? [] : [{ chainId, format: chain.format }];
    }),
    ...snapshots.map(({ status }) => status).filter(({ state }) => state !== 'missing'),
  ].filter((ref) => format === undefined || ref.format === format);
  const [ref, second] = refs;
  if (ref === undefined) {
    throw new CimletError(
      'not-found',
      `${name} names no layer${format === undefined ? '' : ` in ${format}`}`,
      {
        hint: 'cimlet get chains and cimlet get snapshots list what there is',
      },
    );
  }
  if (second === undefined) return { chainId: ref.chainId, format: ref.format };
  const found = refs.map((each) => `${each.format} ${shortenDigests(each.chainId)}`).join(', ');
  throw new CimletError('failed-precondition', `${name} names several layers: ${found}`, {
    hint: 'name more of the chain ID, or choose one with --format',
  });
}

/** Runs an effect that the first signal cancels, and prints what the host warns of. */
export function carryOut<T>(context: CliContext, effect: (effect: EffectContext) => Promise<T>): Promise<T> {
  const warn = (message: string) =>
    context.terminal.printError(`${context.terminal.paintError('yellow', 'warning:')} ${printable(message)}`);
  return interruptible(context, (signal) => effect({ signal, warn }));
}
