import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { createEmbeddedHost, type EmbeddedHostOptions } from '../../../src/hosts/embedded/embedded-host.ts';
import type {
  EffectContext,
  Host,
  MergeRequest,
  MountRequest,
  UnpackRequest,
  ViewKind,
} from '../../../src/hosts/host.ts';
import { chainIds, mountVolumeGuid } from '../../../src/hosts/identity.ts';
import { type LayerItem, writeLayerBlob } from '../../support/host-layers.ts';
import { unmountBelow } from '../../support/mounts.ts';

export const context: EffectContext = { signal: new AbortController().signal };

export interface Bench {
  directory: string;
  root: string;
  host: Host;
}

/** A host on a root of its own; both gone, with every mount, when the test ends. */
export async function openBench(options: Omit<EmbeddedHostOptions, 'root'> = {}): Promise<Bench> {
  const directory = await makeDirectory();
  const root = join(directory, 'root');
  return { directory, root, host: createEmbeddedHost({ ...options, root }) };
}

export async function makeDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'cimlet-embedded-'));
  onTestFinished(async () => {
    unmountBelow(directory);
    await rm(directory, { recursive: true, force: true });
  });
  return directory;
}

/** Requests for a stack of layers, base first. */
export async function makeStack(
  directory: string,
  ...layers: (readonly LayerItem[])[]
): Promise<[UnpackRequest, ...UnpackRequest[]]> {
  await mkdir(directory, { recursive: true });
  const sources = [];
  for (const items of layers) sources.push(await writeLayerBlob(directory, items));
  const chain = chainIds(sources.map(({ diffId }) => diffId));
  const requests = sources.map(
    ({ blob, diffId }, index): UnpackRequest => ({
      chainId: chain[index]!,
      diffId,
      parents: chain.slice(0, index),
      format: 'ForkedCIM',
      blob,
    }),
  );
  return requests as [UnpackRequest, ...UnpackRequest[]];
}

/** The same layers as block CIMs. */
export function asBlocks(
  requests: readonly UnpackRequest[],
  change: Pick<UnpackRequest, 'seal' | 'vhdFooter'> = {},
): [UnpackRequest, ...UnpackRequest[]] {
  const blocks = requests.map((request) => ({ ...request, format: 'BlockCIM' as const, ...change }));
  return blocks as [UnpackRequest, ...UnpackRequest[]];
}

/** The merged CIM that these layers want: sealed and with a footer as they are. */
export function mergeOf(requests: readonly UnpackRequest[]): MergeRequest {
  const chain = requests.map(({ chainId }) => chainId);
  return { chain, format: 'BlockCIM', seal: requests[0]?.seal, vhdFooter: requests[0]?.vhdFooter };
}

export async function build(host: Host, requests: readonly UnpackRequest[]): Promise<void> {
  for (const request of requests) {
    await host.unpackLayer(request, context);
    await host.commitLayer(request, context);
  }
}

export function mountRequest(
  path: string,
  requests: readonly UnpackRequest[],
  view: ViewKind = 'Kernel',
): MountRequest {
  return {
    volumeGuid: mountVolumeGuid(path),
    path,
    chain: requests.map(({ chainId }) => chainId),
    format: requests[0]?.format ?? 'ForkedCIM',
    access: 'ReadOnly',
    view,
  };
}
