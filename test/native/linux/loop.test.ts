import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { attachLoop } from '../../../src/native/linux/loop.ts';
import { canLoop, Workshop } from '../../erofs/mounts.ts';

let shop: Workshop;
beforeEach(() => {
  shop = new Workshop();
  writeFileSync(shop.at('disk'), 'first block');
  truncateSync(shop.at('disk'), 8192);
});
afterEach(() => shop.close());

describe.runIf(canLoop)('a loop device', () => {
  it('shows its file read-only until it is closed', async () => {
    const device = await attachLoop(shop.at('disk'));
    try {
      expect(device.path).toMatch(/^\/dev\/loop\d+$/);
      expect(statSync(device.path).isBlockDevice()).toBe(true);
      expect(readFileSync(device.path).toString('latin1')).toBe(readFileSync(shop.at('disk'), 'latin1'));
      const name = device.path.slice('/dev/'.length);
      expect(readFileSync(`/sys/block/${name}/ro`, 'utf8').trim()).toBe('1');
      expect(readFileSync(`/sys/block/${name}/loop/autoclear`, 'utf8').trim()).toBe('1');
      expect(shop.leftovers()).toHaveLength(1);
    } finally {
      await device.close();
    }
    expect(shop.leftovers()).toEqual([]);
  });

  it('needs a file', async () => {
    await expect(attachLoop(shop.at('none'))).rejects.toMatchObject({ code: 'not-found' });
    await expect(attachLoop(shop.path)).rejects.toThrow(/attach .* to a loop device/);
  });
});
