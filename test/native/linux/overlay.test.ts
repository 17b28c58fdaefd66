import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writeEmptyExt4 } from '../../../src/ext4/empty.ts';
import { unmount } from '../../../src/native/linux/mount.ts';
import { mountExt4, mountOverlay } from '../../../src/native/linux/overlay.ts';
import { canLoop, canMount, Workshop } from '../../erofs/mounts.ts';

let shop: Workshop;
beforeEach(() => {
  shop = new Workshop();
});
afterEach(() => shop.close());

function directories(...names: string[]): void {
  for (const name of names) mkdirSync(shop.at(name), { recursive: true });
}

describe.runIf(canMount)('mountOverlay', () => {
  it('writes to the upper directory alone, whatever the paths are called', async () => {
    const odd = `with:colons,commas\\and ${'x'.repeat(180)}`;
    directories(`${odd}/lower/directory`, `${odd}/upper`, `${odd}/work`, 'target');
    writeFileSync(shop.at(odd, 'lower/gone'), 'lower');
    const writable = { upper: shop.at(odd, 'upper'), work: shop.at(odd, 'work') };
    const request = { lowers: [shop.at(odd, 'lower')], writable, source: 'cimlet:test' };
    await mountOverlay({ ...request, target: shop.at('target') });
    try {
      expect(readFileSync('/proc/self/mountinfo', 'utf8')).toContain(' - overlay cimlet:test rw,');
      writeFileSync(shop.at('target/new'), 'new');
      rmSync(shop.at('target/gone'));
    } finally {
      await unmount(shop.at('target'));
    }
    expect(readdirSync(writable.upper).sort()).toEqual(['gone', 'new']);
    expect(statSync(shop.at(odd, 'upper/gone')).isCharacterDevice()).toBe(true);
    expect(readFileSync(shop.at(odd, 'lower/gone'), 'utf8')).toBe('lower');
  });

  it('shows many layers read-only, the first one topmost', async () => {
    const lowers = Array.from({ length: 130 }, (_, index) => shop.at(`lower-${index}`));
    directories('target', ...lowers.map((_, index) => `lower-${index}`));
    for (const [index, lower] of lowers.entries()) {
      writeFileSync(`${lower}/same`, String(index));
      writeFileSync(`${lower}/${index}`, '');
    }
    await mountOverlay({ lowers, source: 'cimlet:test', target: shop.at('target') });
    try {
      expect(readFileSync(shop.at('target/same'), 'utf8')).toBe('0');
      expect(readdirSync(shop.at('target'))).toHaveLength(131);
      expect(() => writeFileSync(shop.at('target/new'), '')).toThrow(/EROFS/);
    } finally {
      await unmount(shop.at('target'));
    }
  });

  it.runIf(canLoop)(
    'holds on to an image whose own mount has gone; a second mount sees the same files',
    async () => {
      directories('lower', 'scratch', 'target');
      writeEmptyExt4(shop.at('image'), 8 * 2 ** 20, Buffer.alloc(16, 1));
      await mountExt4(shop.at('image'), shop.at('scratch'));
      directories('scratch/upper', 'scratch/work');
      const writable = { upper: shop.at('scratch/upper'), work: shop.at('scratch/work') };
      await mountOverlay({
        lowers: [shop.at('lower')],
        writable,
        source: 'cimlet:test',
        target: shop.at('target'),
      });
      try {
        await unmount(shop.at('scratch'));
        writeFileSync(shop.at('target/new'), 'new');
        await mountExt4(shop.at('image'), shop.at('scratch'));
        expect(readFileSync(shop.at('scratch/upper/new'), 'utf8')).toBe('new');
        await unmount(shop.at('scratch'));
      } finally {
        await unmount(shop.at('target'));
      }
      expect(existsSync(shop.at('scratch/upper'))).toBe(false);
    },
  );
});
