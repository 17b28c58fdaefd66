import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
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
    code: 'failed-precondition',
    message: expect.stringMatching(/its root hash is sha256:[0-9a-f]{64}, expected is sha256:[0-9a-f]{64}$/),
  });
  expect(existsSync(target)).toBe(false);
});

it('exports no sealed disk that has another content than was sealed, or another seal', async () => {
  const { host, directory, root } = await openBench();
  const [layer] = (await makeStack(join(directory, 'blobs'), layerItems({ a: 'sealed content' }))).map(
    (request) => ({ ...request, format: 'LCOW' as const, seal: true }),
  );
  await build(host, [layer!]);
  const target = join(directory, 'layer.tar');
  await host.exportLayer(layer!, target, context);
  await rm(target);
  const disk = join(root, 'snapshots', `${hexOf(layer!.chainId)}.lcow`, 'layer.vhd');
  const sealed = await readFile(disk);

  const changed = Buffer.from(sealed);
  changed.write('Sealed', changed.indexOf('sealed content'));
  await writeFile(disk, changed);
  await expect(host.exportLayer(layer!, target, context)).rejects.toMatchObject({
    code: 'corrupt',
    message: expect.stringContaining(disk),
  });

  const [other] = (await makeStack(join(directory, 'other'), layerItems({ a: 'sealed elsewhere' }))).map(
    (request) => ({ ...request, format: 'LCOW' as const, seal: true }),
  );
  await build(host, [other!]);
  await copyFile(join(root, 'snapshots', `${hexOf(other!.chainId)}.lcow`, 'layer.vhd'), disk);
  await expect(host.exportLayer(layer!, target, context)).rejects.toThrow(
    /its root hash is sha256:[0-9a-f]{64}, expected is sha256:/,
  );
  expect(existsSync(target)).toBe(false);
});

it('cleans up after an export that a crash ended, and keeps what is whole', async () => {
  const { host, directory, root } = await openBench();
  const [layer] = await makeStack(join(directory, 'blobs'), layerItems({ a: 'content' }));
  await build(host, [layer]);
  const target = join(directory, 'out', 'layer.tar');
  await mkdir(join(directory, 'out'));
  await host.exportLayer(layer, target, context);
  expect(await readdir(join(root, 'exports'))).toEqual([]);

  const part = join(directory, 'out', '.layer.tar.6f1c2f0e-5d6d-5c39-8f6b-0d0f5c9a1b14.part');
  await writeFile(part, 'the beginning');
  const record = join(root, 'exports', `${deadProcess()}-${hexOf(layer.chainId)}.json`);
  await writeFile(record, JSON.stringify({ formatVersion: 1, temporary: part }));
  const forged = join(root, 'exports', `${'0'.repeat(64)}.json`);
  await writeFile(forged, JSON.stringify({ formatVersion: 1, temporary: target }));
  expect((await host.observe(context)).leftovers.map(({ path }) => path).sort()).toEqual(
    [part, record, forged].sort(),
  );
  await host.cleanLeftovers(context);
  expect((await host.observe(context)).leftovers).toEqual([]);
  expect(await readdir(join(directory, 'out'))).toEqual(['layer.tar']);
});

it('leaves an export alone that another process is at', async () => {
  const { host, directory, root } = await openBench();
  const part = join(directory, '.layer.tar.6f1c2f0e-5d6d-5c39-8f6b-0d0f5c9a1b14.part');
  await writeFile(part, 'the beginning');
  await mkdir(join(root, 'exports'), { recursive: true });
  const record = (pid: number) => join(root, 'exports', `${pid}-${'0'.repeat(64)}.json`);
  await writeFile(record(process.ppid), JSON.stringify({ formatVersion: 1, temporary: part }));
  expect(await host.cleanLeftovers(context)).toEqual([]);
  expect(existsSync(part)).toBe(true);
  await rename(record(process.ppid), record(deadProcess()));
  await host.cleanLeftovers(context);
  expect(existsSync(part)).toBe(false);
});

/** The ID of a process that has ended. */
function deadProcess(): number {
  return spawnSync(process.execPath, ['--version']).pid;
}
