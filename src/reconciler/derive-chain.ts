/** The layers a LayerChain or a Mount stands for, in which format, merged and sealed or not; or what stands in the way. */

import { CimletError } from '../errors.ts';
import {
  type Capabilities,
  type Capability,
  type ChainId,
  type LayerFormat,
  MAX_MERGED_LAYERS,
} from '../hosts/host.ts';
import { chainIds } from '../hosts/identity.ts';
import { type LayerChainResource, type MountResource, resourceKey } from '../manifests/resources.ts';
import { archiveKey } from './archives.ts';
import type { Desired, DesiredChain, DesiredInput, DesiredLayer, Obstacle } from './desired.ts';
import type { ResolvedImage } from './types.ts';

const CIM_FORMATS: readonly LayerFormat[] = ['ForkedCIM', 'BlockCIM'];
/** In order of preference. */
export const WINDOWS_FORMATS: readonly LayerFormat[] = ['BlockCIM', 'ForkedCIM', 'WCIFS'];
const SEALED_FORMATS: readonly LayerFormat[] = ['BlockCIM', 'LCOW'];

/** What a chain asks for beside its layers. */
interface ChainWish {
  format?: LayerFormat | undefined;
  merge?: boolean | undefined;
  verified: boolean;
  vhdFooter: boolean;
}

/** Records the chain in `desired`, unless there is an obstacle. */
export function deriveChain(
  resource: LayerChainResource | MountResource,
  input: DesiredInput,
  desired: Desired,
): Obstacle | undefined {
  const key = resourceKey(resource);
  const found = findLayers(resource, input, desired);
  if ('code' in found) return found;
  const { os, layers } = found;
  const { capabilities } = input;
  const wish = wishOf(resource);
  const recorded = input.recordOf(key)?.facts.chain?.format;
  const format = chooseFormat(os, layers.length, wish, recorded, capabilities);
  const merged = isShownMerged(format, layers.length) && wish.merge !== false;
  const obstacle =
    findMisfit(os, format) ??
    findWishMisfit(wish, format, layers.length) ??
    (merged ? findExcess(layers.length) : undefined) ??
    findIncapacity(`${format}.write`, `write ${format} layers`, capabilities) ??
    (merged ? findIncapacity('merge', 'merge chains', capabilities) : undefined) ??
    (wish.verified ? findIncapacity('seal', 'seal layers', capabilities) : undefined) ??
    (resource.kind === 'Mount'
      ? findIncapacity(`${format}.mount`, `mount ${format} layers`, capabilities)
      : undefined);
  if (obstacle !== undefined) return obstacle;
  if (wish.format === undefined && capabilities === undefined) {
    desired.notes.push({ key, message: `format ${format} assumed: the host chooses it` });
  }
  desired.chains.set(key, {
    format,
    layers,
    merged,
    verified: wish.verified,
    vhdFooter: wish.vhdFooter,
  });
  return undefined;
}

/** Whether a chain of so many layers is shown through a merged CIM. */
export function isShownMerged(format: LayerFormat, layers: number): boolean {
  return format === 'BlockCIM' && layers > 1;
}

/** Why a Mount can't show the LayerChain it names. */
export function findChainObstacle(
  mount: MountResource,
  chain: DesiredChain,
  capabilities: Capabilities | undefined,
): Obstacle | undefined {
  const { format, layers } = chain;
  if (isShownMerged(format, layers.length) && !chain.merged) {
    return {
      code: 'invalid-manifest',
      message: `it needs the merged CIM of LayerChain/${mount.spec.chain}, whose spec.merge is false: a ${format} chain of ${layers.length} layers is shown through it`,
      hint: "leave the LayerChain's spec.merge out",
    };
  }
  return findIncapacity(`${format}.mount`, `mount ${format} layers`, capabilities);
}

/** Why a root hash can't be expected of a chain. */
export function findExpectationObstacle(mount: MountResource, chain: DesiredChain): Obstacle | undefined {
  if (mount.spec.expectedRootHash === undefined || chain.verified) return undefined;
  return {
    code: 'invalid-manifest',
    message: 'spec.expectedRootHash: only a chain with `integrity: Verified` has a root hash',
    hint:
      mount.spec.chain === undefined
        ? 'name a LayerChain with `integrity: Verified` in spec.chain, instead of spec.image'
        : `set spec.integrity: Verified in LayerChain/${mount.spec.chain}`,
  };
}

function wishOf(resource: LayerChainResource | MountResource): ChainWish {
  if (resource.kind === 'Mount') return { verified: false, vhdFooter: false };
  const { format, merge, integrity, vhdFooter } = resource.spec;
  return { format, merge, verified: integrity === 'Verified', vhdFooter: vhdFooter === true };
}

function findLayers(
  resource: LayerChainResource | MountResource,
  input: DesiredInput,
  desired: Desired,
): { os: string; layers: readonly DesiredLayer[] } | Obstacle {
  const key = resourceKey(resource);
  const entries: { image?: string | undefined; archive?: string; digest?: string }[] =
    resource.kind === 'LayerChain' ? resource.spec.layers : [{ image: resource.spec.image }];
  const layers: UnplacedLayer[] = [];
  let os: string | undefined;
  for (const entry of entries) {
    if (entry.archive !== undefined) {
      const archive = input.archives.get(archiveKey(resource.baseDirectory, entry));
      if (archive === undefined) return { code: 'unavailable', message: `${entry.archive} was not read` };
      if (archive instanceof CimletError)
        return { code: archive.code, message: archive.message, hint: archive.hint };
      layers.push({ ...archive, from: { archive: entry.archive } });
      continue;
    }
    const name = entry.image ?? '';
    const image = desired.images.get(name);
    if (image === undefined) throw new Error(`${key} was reached before Image/${name}`);
    if (os !== undefined && image.platform.os !== os) {
      return {
        code: 'invalid-manifest',
        message: `spec.layers mixes layers for ${os} and for ${image.platform.os} (Image/${name})`,
      };
    }
    os = image.platform.os;
    if (entries.length === 1 && image.layers.length > 0) return { os, layers: stackOf(name, image) };
    layers.push(...layersOf(name, image));
  }
  if (layers.length === 0) {
    const names = entries.map(({ image }) => `Image/${image}`).join(', ');
    return { code: 'invalid-manifest', message: `it has no layers: ${names} is empty` };
  }
  // Archives don't say what they are for: what the format holds.
  return { os: os ?? (wishOf(resource).format === 'LCOW' ? 'linux' : 'windows'), layers: place(layers) };
}

type UnplacedLayer = Omit<DesiredLayer, 'chainId'>;

function layersOf(name: string, image: ResolvedImage): UnplacedLayer[] {
  return image.layers.map(({ diffId, blob }) => ({ diffId, blob, from: { image: name } }));
}

/** By image, which stays the same object for as long as it is the same image. */
const stacks = new WeakMap<ResolvedImage, { name: string; layers: readonly DesiredLayer[] }>();

/** An image's layers on nothing else, as most chains are. */
function stackOf(name: string, image: ResolvedImage): readonly DesiredLayer[] {
  const known = stacks.get(image);
  if (known?.name === name) return known.layers;
  const layers = place(layersOf(name, image));
  stacks.set(image, { name, layers });
  return layers;
}

/** Base first, as they lie on one another. */
function place(layers: readonly UnplacedLayer[]): DesiredLayer[] {
  const ids = chainIds(layers.map(({ diffId }) => diffId));
  return layers.map((layer, index) => ({ ...layer, chainId: ids[index] as ChainId }));
}

/**
 * What was asked for, else what holds all that was asked for, else what the chain was made with, else what suits the
 * image's os and the host best.
 */
function chooseFormat(
  os: string,
  layers: number,
  wish: ChainWish,
  recorded: LayerFormat | undefined,
  capabilities: Capabilities | undefined,
): LayerFormat {
  if (wish.format !== undefined) return wish.format;
  if (os !== 'windows') return 'LCOW';
  if (wish.merge === true || wish.verified || wish.vhdFooter) return 'BlockCIM';
  if (recorded !== undefined && findMisfit(os, recorded) === undefined) return recorded;
  return WINDOWS_FORMATS.find((format) => isFitting(format, layers, capabilities)) ?? 'ForkedCIM';
}

/** Whether the host can write a chain of so many layers in a format, and show it. Offline every host has what it takes. */
export function isFitting(
  format: LayerFormat,
  layers: number,
  capabilities: Capabilities | undefined,
): boolean {
  const needed: Capability[] = [`${format}.write`, `${format}.mount`];
  if (isShownMerged(format, layers)) {
    if (layers > MAX_MERGED_LAYERS) return false;
    needed.push('merge');
  }
  return needed.every((name) => capabilities?.[name].available ?? true);
}

function findMisfit(os: string, format: LayerFormat): Obstacle | undefined {
  if (os === 'windows') {
    if (format !== 'LCOW') return undefined;
    return {
      code: 'invalid-manifest',
      message: 'spec.format: LCOW holds Linux layers, and this image is for windows',
      hint: 'leave spec.format out, or set ForkedCIM',
    };
  }
  if (format === 'LCOW') return undefined;
  const family = CIM_FORMATS.includes(format) ? 'CIM formats hold' : `${format} holds`;
  return {
    code: 'invalid-manifest',
    message: `spec.format: ${family} Windows layers, and this image is for ${os}: its format is LCOW`,
    hint: 'leave spec.format out, or set LCOW, on a host that supports it (see cimlet doctor)',
  };
}

/** Why the format can't do what else is asked for. */
function findWishMisfit(wish: ChainWish, format: LayerFormat, layers: number): Obstacle | undefined {
  const refuse = (message: string, field: string): Obstacle => ({
    code: 'invalid-manifest',
    message,
    hint: `set spec.format: BlockCIM, or leave ${field} out`,
  });
  if (wish.merge === true && format !== 'BlockCIM')
    return refuse(`spec.merge: ${format} layers are not merged`, 'spec.merge');
  if (wish.merge === true && layers < 2) {
    return {
      code: 'invalid-manifest',
      message: 'spec.merge: merging takes two layers or more, and this chain has one',
      hint: 'leave spec.merge out',
    };
  }
  if (SEALED_FORMATS.includes(format)) return undefined;
  if (wish.verified) return refuse(`spec.integrity: ${format} layers can't be sealed`, 'spec.integrity');
  if (wish.vhdFooter) return refuse(`spec.vhdFooter: ${format} layers are no disks`, 'spec.vhdFooter');
  return undefined;
}

function findExcess(layers: number): Obstacle | undefined {
  if (layers <= MAX_MERGED_LAYERS) return undefined;
  return {
    code: 'invalid-manifest',
    message: `it has ${layers} layers, and at most ${MAX_MERGED_LAYERS} can be merged`,
    hint: 'set spec.format: ForkedCIM, or build images with fewer layers',
  };
}

/** Why the host can't, when it is known to be unable. */
export function findIncapacity(
  capability: Capability,
  ability: string,
  capabilities: Capabilities | undefined,
): Obstacle | undefined {
  const state = capabilities?.[capability];
  if (state === undefined || state.available) return undefined;
  return {
    code: 'unsupported-host',
    message: `this host can't ${ability}: ${state.reason ?? 'not available'}`,
    hint: state.hint,
  };
}
