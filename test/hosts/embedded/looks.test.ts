/** Looking again: what is kept from one look to the next hides nothing that happened meanwhile. */

import { rm, truncate, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { cimPath, layerFolder, layoutOf, snapshotPath } from '../../../src/hosts/layout.ts';
import { asBlocks, build, context, makeStack, openBench } from './fixture.ts';

/** A host that has looked several times, its directories at rest as those of a host are that has long been up. */
async function looked() {
  const bench = await openBench();
  const { host, directory, root } = bench;
  const forked = await makeStack(
    join(directory, 'blobs'),
    [{ name: 'Files/a', type: 'file', content: Buffer.from('a') }],
    [{ name: 'Files/b', type: 'file', content: Buffer.from('b') }],
  );
  const blocks = asBlocks(forked);
  await build(host, [...forked, ...blocks]);
  const layout = layoutOf(root);
  for (const folder of [layout.cimLayers, layout.snapshots]) await utimes(folder, 1_000_000, 1_000_000);
  const look = () => host.observe({ signal: context.signal });
  const before = await look();
  const again = await look();
  expect(again.layers).toBe(before.layers);
  expect(again.layers.map(({ faults }) => faults)).toEqual([[], [], [], []]);
  expect(again.leftovers).toEqual([]);
  return { ...bench, layout, look, forked, blocks };
}

const faultsOf = async (look: Awaited<ReturnType<typeof looked>>['look']) =>
  (await look()).layers.flatMap(({ faults }) => faults.map(({ code }) => code)).sort();

describe('a look after others that found nothing', () => {
  it('sees files cut short and deleted', async () => {
    const { layout, look, forked, blocks } = await looked();
    await truncate(cimPath(layout, forked[0].chainId), 1);
    await rm(join(snapshotPath(layout, layerFolder(blocks[0])), 'layer.bcim'));
    expect(await faultsOf(look)).toEqual(['file-missing', 'file-size']);
  });

  it('sees that a layer is gone, or its record', async () => {
    const { layout, look, forked, blocks } = await looked();
    await rm(snapshotPath(layout, layerFolder(forked[0])), { recursive: true });
    await writeFile(join(snapshotPath(layout, layerFolder(blocks[1]!)), 'layer.json'), '{');
    const { layers, leftovers } = await look();
    expect(layers.map(({ chainId, format }) => [chainId, format]).sort()).toEqual(
      [
        [forked[1]!.chainId, 'ForkedCIM'],
        [blocks[0].chainId, 'BlockCIM'],
      ].sort(),
    );
    expect(layers.flatMap(({ faults }) => faults.map(({ code }) => code))).toEqual(['parent-missing']);
    expect(leftovers.map(({ reason }) => reason)).toContain('a file of no committed layer');
    expect(leftovers.map(({ reason }) => reason)).toContain('a snapshot folder without a readable record');
  });

  it('sees damage that was noted, until the note is gone', async () => {
    const { layout, look, forked } = await looked();
    const note = join(snapshotPath(layout, layerFolder(forked[0])), 'damage.json');
    await writeFile(note, JSON.stringify({ formatVersion: 1, message: 'bad block' }));
    expect(await faultsOf(look)).toEqual(['file-corrupt']);
    await rm(note);
    expect(await faultsOf(look)).toEqual([]);
  });

  it('sees what a killed unpack left beside files of layers, each time', async () => {
    const { layout, look } = await looked();
    const stray = join(layout.cimLayers, `tmp-${'0'.repeat(64)}.cim`);
    await writeFile(stray, 'x');
    for (let index = 0; index < 3; index++)
      expect((await look()).leftovers.map(({ path }) => path)).toEqual([stray]);
    await rm(stray);
    expect((await look()).leftovers).toEqual([]);
  });
});
