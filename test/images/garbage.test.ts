/** What of a root's images may go, against a plain model. */

import { createHash } from 'node:crypto';
import { utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Digest } from '../../src/hosts/host.ts';
import { type BlobStore, openBlobStore } from '../../src/images/blob-store.ts';
import { findGarbage, type GarbagePolicy, removeGarbage } from '../../src/images/garbage.ts';
import { makeTemporaryDirectory } from '../support/stored-blob.ts';
import { filesIn } from './registry/registry-fixture.ts';

const NOW = Date.parse('2026-06-01T00:00:00Z');
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const POLICY: GarbagePolicy = { minAgeMs: DAY, highPercent: 85, lowPercent: 80 };
const signal = new AbortController().signal;
const NOBODY = { references: new Set<string>(), manifests: new Set<string>(), layers: new Set<string>() };

function digestOf(text: string | Buffer): Digest {
  return `sha256:${createHash('sha256').update(text).digest('hex')}` as Digest;
}

async function add(store: BlobStore, text: string, ageMs: number): Promise<{ digest: Digest; size: number }> {
  const bytes = Buffer.from(text);
  const digest = digestOf(bytes);
  await store.addDocument(digest, bytes);
  const at = (NOW - ageMs) / 1000;
  utimesSync(store.pathOf(digest), at, at);
  return { digest, size: bytes.length };
}

interface Wanted {
  name: string;
  layers: string[];
  ageMs: number;
  /** Loaded by hand when there is none. */
  resolvedAgeMs?: number | undefined;
}

async function addImage(store: BlobStore, { name, layers, ageMs, resolvedAgeMs }: Wanted): Promise<Digest[]> {
  const blobs = await Promise.all(layers.map((layer) => add(store, layer, ageMs)));
  const config = await add(
    store,
    JSON.stringify({
      os: 'windows',
      architecture: 'amd64',
      name,
      rootfs: { type: 'layers', diff_ids: blobs.map(({ digest }) => digest) },
    }),
    ageMs,
  );
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = await add(
    store,
    JSON.stringify({
      schemaVersion: 2,
      mediaType,
      config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...config },
      layers: blobs.map((blob) => ({ mediaType: 'application/vnd.oci.image.layer.v1.tar', ...blob })),
    }),
    ageMs,
  );
  await store.recordImage({
    reference: name,
    descriptor: { mediaType, ...manifest, urls: [], annotations: {} },
    resolvedAt: resolvedAgeMs === undefined ? undefined : NOW - resolvedAgeMs,
  });
  return [manifest.digest, config.digest, ...blobs.map(({ digest }) => digest)];
}

const newStore = () => openBlobStore(makeTemporaryDirectory());

describe('garbage', () => {
  it('is what nothing uses, and was not used for long enough; shared blobs stay with whoever has them', async () => {
    const store = newStore();
    const base = 'base'.repeat(100);
    await addImage(store, {
      name: 'old',
      layers: [base, 'old layer'],
      ageMs: 3 * DAY,
      resolvedAgeMs: 2 * DAY,
    });
    await addImage(store, {
      name: 'young',
      layers: [base, 'young layer'],
      ageMs: 3 * DAY,
      resolvedAgeMs: HOUR,
    });
    await addImage(store, { name: 'used', layers: ['used layer'], ageMs: 9 * DAY, resolvedAgeMs: 9 * DAY });
    await addImage(store, { name: 'loaded', layers: ['loaded layer'], ageMs: 9 * DAY });
    const stray = await add(store, 'stray', 2 * DAY);
    await add(store, 'just fetched', HOUR);
    const inUse = { ...NOBODY, references: new Set(['used']) };
    const found = await findGarbage(store, { inUse, policy: POLICY, disk: undefined, now: NOW });
    expect(found.images.map(({ image, reason }) => [image.reference, reason])).toEqual([
      ['old', 'nothing uses it'],
    ]);
    expect(found.blobs.map(({ blob }) => blob.digest)).toContain(stray.digest);
    expect(found.blobs).toHaveLength(4); // stray; old's manifest, configuration and layer
    expect(found.blobs.map(({ blob }) => blob.digest)).not.toContain(digestOf(base));

    await removeGarbage(store, found, { now: NOW, signal });
    const after = await findGarbage(store, { inUse, policy: POLICY, disk: undefined, now: NOW });
    expect(after).toMatchObject({ images: [], blobs: [], bytes: 0 });
    expect((await store.listImages()).map(({ reference }) => reference).sort()).toEqual([
      'loaded',
      'used',
      'young',
    ]);
    // The age of what was in use begins when its use ends.
    const later = NOW + DAY - 1;
    expect(
      (await findGarbage(store, { inUse: NOBODY, policy: POLICY, disk: undefined, now: later })).images,
    ).toEqual([expect.objectContaining({ image: expect.objectContaining({ reference: 'young' }) })]);
    const images = (
      await findGarbage(store, { inUse: NOBODY, policy: POLICY, disk: undefined, now: later + 1 })
    ).images;
    expect(images.map(({ image }) => image.reference)).toEqual(['young', 'used']);
  });

  it('is found by what layers were built from, too', async () => {
    const store = newStore();
    const old = { ageMs: 9 * DAY, resolvedAgeMs: 9 * DAY };
    const [manifest, , layer] = await addImage(store, { name: 'a', layers: ['base', 'x'], ...old });
    // Of the same base, and in nobody's use.
    await addImage(store, { name: 'b', layers: ['base', 'y'], ...old });
    const inUse = { ...NOBODY, manifests: new Set([String(manifest)]), layers: new Set([String(layer)]) };
    const found = await findGarbage(store, { inUse, policy: POLICY, disk: undefined, now: NOW });
    expect(found.images.map(({ image }) => image.reference)).toEqual(['b']);
    expect(found.blobs).toHaveLength(3);
    // A tag that moved: the blob is no image's any more, and still what a layer was built from.
    await store.forgetImages(['a', 'b']);
    const after = await findGarbage(store, { inUse, policy: POLICY, disk: undefined, now: NOW });
    expect(after.blobs.map(({ blob }) => blob.digest)).not.toContain(layer);
    expect(after.blobs).toHaveLength(5); // Three of b, and a's configuration and own layer.
  });

  it('stays while all of it takes no more than is to be kept', async () => {
    const store = newStore();
    for (const [index, name] of ['a', 'b', 'c'].entries()) {
      const ageMs = (9 - index) * DAY;
      await addImage(store, { name, layers: [name.repeat(10_000)], ageMs, resolvedAgeMs: ageMs });
    }
    const total = (await store.listBlobs()).reduce((sum, { bytes }) => sum + bytes, 0);
    const dropped = async (keepBytes: number) => {
      const policy = { ...POLICY, keepBytes };
      const found = await findGarbage(store, { inUse: NOBODY, policy, disk: undefined, now: NOW });
      return found.images.map(({ image }) => image.reference);
    };
    expect(await dropped(total)).toEqual([]);
    expect(await dropped(total - 1)).toEqual(['a']);
    expect(await dropped(total - 10_000)).toEqual(['a']);
    expect(await dropped(15_000)).toEqual(['a', 'b']);
    expect(await dropped(0)).toEqual(['a', 'b', 'c']);
  });

  it('is whatever is unused, oldest first, while the disk is too full', async () => {
    const store = newStore();
    for (const [index, name] of ['a', 'b', 'c'].entries()) {
      const ageMs = (9 - index) * HOUR;
      await addImage(store, { name, layers: [name.repeat(10_000)], ageMs, resolvedAgeMs: ageMs });
    }
    const dropped = async (usedBytes: number) => {
      const disk = { usedBytes, totalBytes: 100_000 };
      const inUse = { ...NOBODY, references: new Set(['b']) };
      const found = await findGarbage(store, { inUse, policy: POLICY, disk, now: NOW });
      return found.images.map(({ image }) => image.reference);
    };
    expect(await dropped(85_000)).toEqual([]);
    expect(await dropped(85_001)).toEqual(['a']);
    expect(await dropped(95_000)).toEqual(['a', 'c']);
    expect(await dropped(100_000)).toEqual(['a', 'c']);
  });

  it('of broken-off pulls goes with age, and never while it is young', async () => {
    const directory = makeTemporaryDirectory();
    const store = openBlobStore(directory);
    await addImage(store, { name: 'a', layers: ['x'], ageMs: 0, resolvedAgeMs: 0 });
    await store.addBlob(
      { digest: digestOf('y'), size: 1 },
      async (ingest) => ingest.write(Buffer.from('')),
      signal,
    );
    const [part = ''] = filesIn(join(directory, 'ingest'));
    writeFileSync(join(directory, 'ingest', part), 'part');
    const at = (ageMs: number) =>
      utimesSync(join(directory, 'ingest', part), NOW / 1000, (NOW - ageMs) / 1000);
    const full = { usedBytes: 99, totalBytes: 100 };
    at(60_000);
    const young = await findGarbage(store, { inUse: NOBODY, policy: POLICY, disk: full, now: NOW });
    expect(young.blobs.map(({ blob }) => blob.path)).not.toContain(join(directory, 'ingest', part));
    at(DAY);
    const old = await findGarbage(store, { inUse: NOBODY, policy: POLICY, disk: undefined, now: NOW });
    await removeGarbage(store, old, { now: NOW, signal });
    expect(filesIn(join(directory, 'ingest'))).toEqual([]);
  });

  it('never is what a used, young or hand-made image leads to', async () => {
    const image = fc.record({
      layers: fc.array(fc.constantFrom('p', 'q', 'r', 's', 't'), { minLength: 1, maxLength: 4 }),
      days: fc.nat(3),
      isUsed: fc.boolean(),
      isLoaded: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(image, { maxLength: 5 }), fc.boolean(), async (wanted, isFull) => {
        const store = newStore();
        const staying = new Set<string>();
        const used = new Set<string>();
        for (const [index, { layers, days, isUsed, isLoaded }] of wanted.entries()) {
          const name = `image-${index}`;
          const resolvedAgeMs = isLoaded ? undefined : days * DAY;
          const digests = await addImage(store, { name, layers, ageMs: 9 * DAY, resolvedAgeMs });
          if (isUsed) used.add(name);
          if (isUsed || isLoaded || (days === 0 && !isFull))
            for (const digest of digests) staying.add(digest);
        }
        const disk = isFull ? { usedBytes: 1e9, totalBytes: 1e9 } : undefined;
        const inUse = { ...NOBODY, references: used };
        const found = await findGarbage(store, { inUse, policy: POLICY, disk, now: NOW });
        const all = (await store.listBlobs()).map(({ digest }) => String(digest));
        await removeGarbage(store, found, { now: NOW, signal });
        const left = (await store.listBlobs()).map(({ digest }) => String(digest));
        expect(left.sort()).toEqual(all.filter((digest) => staying.has(digest)).sort());
      }),
      { numRuns: 30 },
    );
  });
});
