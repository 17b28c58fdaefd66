import { mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { hexOf } from '../../src/hosts/identity.ts';
import { writeOciLayout } from '../../src/images/layout-writer.ts';
import { LocalImages } from '../../src/images/local-images.ts';

const signal = new AbortController().signal;
const request = { host: { os: 'windows', architecture: 'amd64' } };

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-local-images-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

async function write(name: string, text: string) {
  const [image] = await writeOciLayout(join(directory, name), {
    layers: [{ tar: [Buffer.from(text)], compression: 'none' }],
    platform: { os: 'windows', architecture: 'amd64' },
  });
  return image!;
}

describe('images on this machine', () => {
  const images = new LocalImages();
  const look = (ociLayout = 'app') => images.resolve({ ociLayout }, directory, request, signal);

  it('are resolved anew when their layout is written again, whatever its size', async () => {
    const first = await write('app', 'one');
    const found = await look();
    expect(found.digest).toBe(first.digest);
    expect(await look()).toBe(found);
    const second = await write('app', 'two');
    expect((await look()).digest).toBe(second.digest);
  });

  it('are resolved anew when a link leads to another layout', async () => {
    await write('old', 'one');
    const { digest } = await write('new', 'two');
    symlinkSync('old', join(directory, 'app'));
    await look();
    symlinkSync('new', join(directory, 'link'));
    renameSync(join(directory, 'link'), join(directory, 'app'));
    expect((await look()).digest).toBe(digest);
  });

  it('are not whole any more when a layer or a document is gone, or another one', async () => {
    const { digest, layers } = await write('app', 'one');
    const blob = (of: string) => join(directory, 'app/blobs/sha256', hexOf(of));
    await look();
    rmSync(blob(layers[0]!.digest));
    await expect(look()).rejects.toMatchObject({ code: 'not-found' });
    await write('app', 'one');
    await look();
    writeFileSync(blob(digest), '{}');
    await expect(look()).rejects.toMatchObject({ code: 'corrupt' });
  });
});
