/** An Image's action: resolved again, its layers brought here, each one told of as it arrives. */

import { stat } from 'node:fs/promises';
import { CimletError, classify } from '../errors.ts';
import type { EffectContext, LayerBlob, Progress } from '../hosts/host.ts';
import { sumProgress } from '../images/sum-progress.ts';
import { createImageMachine } from '../machines/image-machine.ts';
import type { ResourceKey } from '../manifests/resources.ts';
import type { ResourceFacts } from '../state/records.ts';
import { attempt, drive, type PerformContext, type WorkOf } from './perform-context.ts';
import type { ResolvedImage } from './types.ts';

export async function performImage(work: WorkOf<'resolveImage'>, context: PerformContext): Promise<void> {
  const { state } = context;
  const key: ResourceKey = `Image/${work.image}`;
  let facts: ResourceFacts = {};
  let config: Buffer | undefined;
  const machine = createImageMachine({
    resolveImage: (name) =>
      attempt(context, `resolve image ${name}`, async ({ signal, progress }) => {
        progress?.({ phase: 'resolving', done: 0, total: 0 });
        const image = await context.resolveImage(name, signal);
        if (image.digest !== work.digest) {
          throw new CimletError(
            'failed-precondition',
            `resolve image ${name}: it is ${image.digest} now, the plan was made for ${work.digest}`,
            { hint: 'plan again' },
          );
        }
        facts = { image: factsOf(image) };
        config = await image.readConfig?.(signal);
        // Layers that came stay for the next attempt, should one of them fail for long.
        const fetching = image.layers.map(({ blob }) => blob.digest);
        state.recordFacts(key, { ...state.resource(key)?.facts, fetching });
      }),
    fetchBlobs: (name) =>
      attempt(context, `fetch image ${name}`, async (effect) => {
        const bytes = await fetchBlobs(work, context, effect);
        await context.recordImage(name);
        if (bytes > 0)
          state.recordEvent({
            key,
            type: 'Normal',
            reason: 'Fetched',
            message: `${work.digest}: ${bytes} bytes of layers`,
          });
      }),
  });
  await drive(machine, { image: work.image, retry: context.retry }, context);
  state.transaction(() => {
    state.recordApplied(key, facts);
    if (config !== undefined) state.keepImageConfig(work.image, config.toString());
  });
}

/**
 * All are tried, whatever happens to one: what is built of the others doesn't wait for it. Resolves with the bytes that
 * had to be fetched.
 */
async function fetchBlobs(
  { image, blobs }: WorkOf<'resolveImage'>,
  { fetchLayer, arrivals }: PerformContext,
  effect: EffectContext,
): Promise<number> {
  const wanted = new Map(blobs.map((blob) => [blob.digest, blob]));
  const progressOf = sumProgress([...wanted.values()], effect);
  const fetching = [...wanted.values()].map(async (blob) => {
    let missing = 0;
    const report = progressOf(blob);
    const progress = (now: Progress) => {
      missing = Math.max(missing, now.total - now.done);
      report(now);
    };
    await fetchLayer(blob, { ...effect, progress });
    await checkBlob(blob, image);
    arrivals.add(blob.digest);
    return missing;
  });
  await Promise.allSettled(fetching);
  const fetched = await Promise.all(fetching);
  return fetched.reduce((sum, bytes) => sum + bytes, 0);
}

function factsOf(image: ResolvedImage): NonNullable<ResourceFacts['image']> {
  const { reference, digest, platform, bytes } = image;
  const layers = image.layers.map(({ diffId, blob }) => ({ diffId, digest: blob.digest, bytes: blob.size }));
  return { ...(reference === undefined ? {} : { reference }), digest, platform, layers, bytes };
}

async function checkBlob(blob: LayerBlob, image: string): Promise<void> {
  const operation = `find layer blob ${blob.digest} of image ${image}`;
  let size: number;
  try {
    size = (await stat(blob.file)).size;
  } catch (error) {
    throw classify(error, operation, 'fetch or copy the image again');
  }
  if (size >= blob.offset + blob.size) return;
  throw new CimletError('corrupt', `${operation}: ${blob.file} ends before the blob does`, {
    hint: 'fetch or copy the image again',
  });
}
