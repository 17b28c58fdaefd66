import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openCim } from '../../../src/cim/reader.ts';
import { writeErofs } from '../../../src/erofs/writer.ts';
import { chooseDevices, openCimView } from '../../../src/hosts/embedded/cim-view.ts';
import { createEmbeddedHost } from '../../../src/hosts/embedded/embedded-host.ts';
import { mountErofs } from '../../../src/native/linux/mount.ts';
import { patternBytes } from '../../cim/fixture.ts';
import { HandMadeImage } from '../../cim/hand-made.ts';
import { requireOrSkip } from '../../support/requirements.ts';
import { makeDirectory } from './fixture.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const kernel = requireOrSkip('kernel EROFS mounts', capabilities['view.Kernel'].available);

/** A PE image of 10,000 bytes whose last 5,904 lie a page further in the data, and a plain file of 9,000 bytes. */
function writeForeign(directory: string): { path: string; pe: Buffer; plain: Buffer } {
  const image = new HandMadeImage(88);
  const pe = patternBytes(10_000, 3);
  const plain = patternBytes(9_000, 5);
  const data = Buffer.concat([pe.subarray(0, 4096), Buffer.alloc(4096, 0xee), pe.subarray(4096)]);
  const descriptor = Buffer.alloc(24 + 8);
  descriptor.writeBigUInt64LE(BigInt(image.add(data)), 0);
  descriptor.writeBigUInt64LE(BigInt(pe.length), 8);
  descriptor.writeUInt32LE(data.length, 16);
  descriptor.writeUInt16LE(1, 20);
  descriptor.writeUInt32LE(4096, 24);
  descriptor.writeUInt32LE(4096, 28);
  const peFile = image.addFile(image.add(descriptor), pe.length, 2);
  const plainFile = image.addFile(image.add(plain), plain.length, 0);
  const root = image.addDirectory([
    ['pe.exe', peFile],
    ['plain', plainFile],
  ]);
  return { path: image.write(directory, root), pe, plain };
}

it.runIf(kernel)('copies PE images, and data of regions that the kernel cannot read in place', async () => {
  const directory = await makeDirectory();
  const { path, pe, plain } = writeForeign(directory);
  const cim = openCim(path);
  try {
    const devices = chooseDevices({ regions: [{ ...cim.regions[0], type: 1, size: 4096 * 2 + 1 }] } as never);
    expect(devices.files, 'an unpadded region is no device').toEqual([]);
    const view = openCimView(cim, {
      uuid: Buffer.alloc(16),
      volumeName: 'x',
      checkpoint: () => undefined,
      devices: chooseDevices(cim),
    });
    expect(view.devices).toEqual([]);
    const image = join(directory, 'view.erofs');
    const target = join(directory, 'm');
    mkdirSync(target);
    await writeErofs(view, image);
    await mountErofs({ image, devices: [], target });
    expect(readFileSync(join(target, 'pe.exe')).equals(pe)).toBe(true);
    expect(readFileSync(join(target, 'plain')).equals(plain)).toBe(true);
  } finally {
    cim.close();
  }
});
