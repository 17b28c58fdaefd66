import { expect, it, onTestFinished, vi } from 'vitest';
import { Ext4Reader } from '../../src/ext4/reader.ts';
import { LowerDisks } from '../../src/layers/lower-disks.ts';
import { makeImage, Workshop } from '../ext4/images.ts';
import { inChunks, tarOf } from '../tar/tar-helpers.ts';

it('a directory as deep as paths go, in two layers, takes a look at each name, from wherever it is asked for', async () => {
  const shop = new Workshop();
  onTestFinished(() => shop.close());
  const depth = 2047;
  const path = 'a/'.repeat(depth);
  const tar = () => inChunks(tarOf({ name: `${path}b`, type: 'fifo', mode: 0o600 }));
  await makeImage(tar(), shop.at('lower'));
  const lower = new LowerDisks([shop.at('lower')]);
  onTestFinished(() => lower.close());
  expect(lower.directory(path.slice(0, -1))).toBeDefined();
  const looks = vi.spyOn(Ext4Reader.prototype, 'child');
  onTestFinished(() => looks.mockRestore());
  await makeImage(tar(), shop.at('upper'), { lower });
  expect(looks.mock.calls.length).toBeLessThan(10 * depth);
});
