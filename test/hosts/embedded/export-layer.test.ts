import { existsSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { hexOf } from '../../../src/hosts/identity.ts';
import { layerItems } from '../../support/host-layers.ts';
import { asBlocks, build, context, makeStack, openBench } from './fixture.ts';

it('exports no sealed layer whose container is another, sealed as it is', async () => {
  const [own, other] = [await openBench(), await openBench()];
  const container = async ({ host, directory, root }: typeof own, content: string) => {
    const stack = await makeStack(join(directory, 'blobs'), layerItems({ a: content }));
    const [layer] = asBlocks(stack, { seal: true });
    await build(host, [layer]);
    return { layer, path: join(root, 'snapshots', `${hexOf(layer.chainId)}.block`, 'layer.bcim') };
  };
  const { layer, path } = await container(own, 'ours');
  await copyFile((await container(other, 'evil')).path, path);
  const target = join(own.directory, 'layer.tar');
  await expect(own.host.exportLayer(layer, target, context)).rejects.toMatchObject({
    code: 'corrupt',
    message: expect.stringMatching(/its root hash is sha256:[0-9a-f]{64}, expected is sha256:[0-9a-f]{64}$/),
  });
  expect(existsSync(target)).toBe(false);
});
