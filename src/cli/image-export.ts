/** `cimlet image export` */

import { mkdtemp, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { CimletError, classify } from '../errors.ts';
import type { EffectContext, Host, LayerRef, ObservedLayer } from '../hosts/host.ts';
import { writeOciLayout } from '../images/layout-writer.ts';
import type { Platform } from '../images/types.ts';
import type { Status } from '../reconciler/status.ts';
import type { CliContext } from './context.ts';
import { configOfImage } from './image-config.ts';
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
    .argument('<image>', 'image/NAME, chain/NAME, mount/NAME, or snapshot/CHAIN-ID')
    .option('-o, --output <directory>', 'the layout to write; what its index listed is replaced')
    .option('--tag <tag>', 'of the image in the layout', 'latest')
    .action(async (name: string, _options, command: Command) => {
      const options = command.optsWithGlobals<ExportOptions>();
      if (command.getOptionValueSourceWithGlobals('output') !== 'cli')
        throw new CimletError('failed-precondition', 'image export: no directory named', {
          hint: `name the layout with -o, for example: cimlet image export ${name} -o layout`,
        });
      const directory = resolve(options.output);
      await withReader(context, options, async ({ engine, state }) => {
        const host = await context.services.openHost(options.host, options.root);
        const { digest, layers } = await carryOut(context, async (effect) => {
          const status = await engine.status(effect.signal);
          const top = findLayer(status, name, undefined);
          const configOf = (chain: readonly ObservedLayer[]) => configOfImage(chain, status, state);
          const platform = (base: ObservedLayer) => platformOf(base, status);
          return exportImage(host, top, { directory, tag: options.tag, configOf, platform }, effect);
        });
        context.terminal.print(
          printable(`Wrote ${directory}: ${digest}, ${plural(layers.length, 'layer')}.`),
        );
      });
    });
}

/** What the image that a base layer came with is for, its version of Windows above all; for a layer of no image, what this machine is. */
function platformOf({ format, diffId }: ObservedLayer, { resources, host }: Status): Platform {
  const image = resources.find(({ facts }) => facts.image?.layers[0]?.diffId === diffId)?.facts.image;
  if (image !== undefined) return image.platform;
  return { os: format === 'LCOW' ? 'linux' : 'windows', architecture: host.host.architecture };
}

interface ImageTarget {
  directory: string;
  tag: string;
  /** The configuration that a chain has from its image. */
  configOf(chain: readonly ObservedLayer[]): Record<string, unknown> | undefined;
  /** Of an image with this base layer. */
  platform(base: ObservedLayer): Platform;
}

/** The tars are beside the layout for as long as it is written. */
async function exportImage(
  host: Host,
  top: LayerRef,
  { directory, tag, configOf, platform }: ImageTarget,
  context: EffectContext,
) {
  const { layers } = await host.observe({ signal: context.signal });
  const chain: ObservedLayer[] = [];
  for (let id: LayerRef['chainId'] | undefined = top.chainId; id !== undefined; ) {
    const layer: ObservedLayer = requireLayer(layers, { chainId: id, format: top.format });
    chain.unshift(layer);
    id = layer.parent;
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
    const [written] = await writeOciLayout(directory, {
      layers: tars.map((tar) => ({ tar, compression: 'gzip' as const })),
      platform: platform(chain[0] as ObservedLayer),
      origin: configOf(chain),
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
