import { execFileSync } from 'node:child_process';
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { attachLoop } from '../../../src/native/linux/loop.ts';
import { canLoop, Workshop } from '../../erofs/mounts.ts';
import { hasTool, requireOrSkip } from '../../support/requirements.ts';

const hasUnshare = requireOrSkip('unshare', hasTool('unshare'));

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

  it.runIf(hasUnshare)('is refused for as long as all are in use, where no more can be made', () => {
    // A /dev as containers have it: the first device is there, and in use.
    const dev = `mount -t tmpfs none /dev; mknod /dev/loop-control c 10 237; mknod /dev/null c 1 3; mknod /dev/loop0 b 7 0`;
    const attach = `
      const { attachLoop } = await import(${JSON.stringify(new URL('../../../src/native/linux/loop.ts', import.meta.url).href)});
      const devices = [];
      try {
        for (;;) devices.push(await attachLoop(process.argv[1]));
      } catch (error) {
        console.log(error.code, error.message);
      }
      for (const device of devices) await device.close();`;
    const node = [process.execPath, '--disable-warning=ExperimentalWarning', '--input-type=module', '-e'];
    const said = execFileSync(
      'unshare',
      ['-m', 'sh', '-c', `${dev}; exec "$@"`, 'sh', ...node, attach, shop.at('disk')],
      { encoding: 'utf8' },
    );
    expect(said).toMatch(/^busy .*all loop devices are in use, and there is no \/dev\/loop\d+$/m);
    expect(shop.leftovers()).toEqual([]);
  });

  it('needs a file', async () => {
    await expect(attachLoop(shop.at('none'))).rejects.toMatchObject({ code: 'not-found' });
    await expect(attachLoop(shop.path)).rejects.toThrow(/attach .* to a loop device/);
  });
});
