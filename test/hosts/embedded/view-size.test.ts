/** What shows a chain takes the room of its metadata, not of its data. */

import { randomBytes } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { createEmbeddedHost } from '../../../src/hosts/embedded/embedded-host.ts';
import { hexOf } from '../../../src/hosts/identity.ts';
import { requireOrSkip } from '../../support/requirements.ts';
import { asBlocks, build, context, makeStack, mergeOf, mountRequest, openBench } from './fixture.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const kernel = requireOrSkip('kernel EROFS mounts', capabilities['view.Kernel'].available);

const MIB = 1024 * 1024;

it.runIf(kernel)('a merged chain of 48 MiB is shown through less than one', { timeout: 60_000 }, async () => {
  const { host, directory, root } = await openBench();
  const contents = [randomBytes(24 * MIB), randomBytes(24 * MIB)] as const;
  const stack = await makeStack(
    join(directory, 'blobs'),
    ...contents.map((content, index) => [
      { name: 'Files/', type: 'directory' as const },
      { name: `Files/data-${index}`, type: 'file' as const, content },
    ]),
  );
  const requests = asBlocks(stack);
  await build(host, requests);
  const { bytes } = await host.mergeChain(mergeOf(requests), context);
  const request = mountRequest(join(directory, 'mount'), requests);
  await host.mount(request, context);
  try {
    for (const [index, content] of contents.entries())
      expect((await readFile(join(request.path, `data-${index}`))).equals(content)).toBe(true);
    const top = hexOf(requests.at(-1)?.chainId ?? requests[0].chainId);
    const files = [`views/${top}.block.erofs`, `snapshots/${top}.merged/merged.bcim`];
    const sizes = await Promise.all(files.map(async (file) => (await stat(join(root, file))).size));
    expect(bytes).toBeLessThan(MIB / 2);
    for (const size of sizes) expect(size).toBeLessThan(MIB / 2);
    for (const { bytes: layer } of (await host.observe(context)).layers)
      expect(layer).toBeGreaterThan(24 * MIB);
  } finally {
    await host.dismount(request.volumeGuid, context);
  }
});
