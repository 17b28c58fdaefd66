/** `cimlet image export` */

import { mkdtemp, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { CimletError, classify } from '../errors.ts';
import type { EffectContext, Host, LayerRef, ObservedLayer } from '../hosts/host.ts';
import { writeOciLayout } from '../images/layout-writer.ts';
import type { CliContext } from './context.ts';
import { carryOut, findLayer } from './layer.ts';
import type { GlobalOptions } from './options.ts';
import { withReader } from './session.ts';
import { plural, printable } from './text.ts';

interface ExportOptions extends GlobalOptions {
  tag: string;
}

export function addExport(image: Command, context: CliContext): void {
  image
    .command('export')
    .description('write a chain of layers as an image: an OCI layout, made of what is on this host')
    .argument('<chain>', 'chain/NAME, mount/NAME, or snapshot/CHAIN-ID')
    .option('-o, --output <directory>', 'the layout to write; what its index listed is replaced')
    .option('--tag <tag>', 'of the image in the layout', 'latest')
    .action(async (name: string, _options, command: Command) => {
      const options = command.optsWithGlobals<ExportOptions>();
      if (command.getOptionValueSourceWithGlobals('output') !== 'cli')
        throw new CimletError('failed-precondition', 'image export: no directory named', {
          hint: `name the layout with -o, for example: cimlet image export ${name} -o layout`,
        });
      const directory = resolve(options.output);
      await withReader(context, options, async ({ engine }) => {
        const host = await context.services.openHost(options.host, options.root);
        const { digest, layers } = await carryOut(context, async (effect) => {
          const top = findLayer(await engine.status(effect.signal), name, undefined);
          return exportImage(host, top, directory, options.tag, effect);
        });
        context.terminal.print(
          printable(`Wrote ${directory}: ${digest}, ${plural(layers.length, 'layer')}.`),
        );
      });
    });
}

/** The tars are beside the layout for as long as it is written. */
async function exportImage(
  host: Host,
  top: LayerRef,
  directory: string,
  tag: string,
  context: EffectContext,
) {
  const { layers, host: machine } = await host.observe({ signal: context.signal });
  const chain: LayerRef[] = [];
  for (let id: LayerRef['chainId'] | undefined = top.chainId; id !== undefined; ) {
    const { chainId, format, parent }: ObservedLayer = requireLayer(layers, {
      chainId: id,
      format: top.format,
    });
    chain.unshift({ chainId, format });
    id = parent;
  }
  const temporary = await mkdtemp(`${directory}.tmp-`).catch((error: unknown) => {
    throw classify(error, `write ${directory}`);
  });
  try {
    const tars: string[] = [];
    for (const [index, ref] of chain.entries()) {
      const tar = join(temporary, `${index}.tar`);
      await host.exportLayer(ref, tar, context);
      tars.push(tar);
    }
    const platform = { os: top.format === 'LCOW' ? 'linux' : 'windows', architecture: machine.architecture };
    const [written] = await writeOciLayout(directory, {
      layers: tars.map((tar) => ({ tar, compression: 'gzip' as const })),
      platform,
      ref: tag,
    });
    if (written === undefined) throw new Error('no image was written');
    return written;
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

function requireLayer(layers: readonly ObservedLayer[], { chainId, format }: LayerRef): ObservedLayer {
  const found = layers.find((layer) => layer.chainId === chainId && layer.format === format);
  if (found !== undefined) return found;
  throw new CimletError('failed-precondition', `export image: layer ${chainId} is gone`, {
    hint: 'apply again, and it is built anew',
  });
}
