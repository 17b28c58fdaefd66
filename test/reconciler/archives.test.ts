import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { LayerChainResource } from '../../src/manifests/resources.ts';
import { archiveKey, resolveArchives } from '../../src/reconciler/archives.ts';
import { chain, image } from './support.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cimlet-archives-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const signal = new AbortController().signal;

function of(name: string, ...archives: string[]): LayerChainResource {
  const layers = archives.map((archive) => ({ archive }));
  return { ...chain(name, [], { layers }), baseDirectory: folder };
}

it('reads an archive once, however it is spelt and however many chains name it', async () => {
  writeFileSync(join(folder, 'a.tar'), Buffer.alloc(1024));
  const chains = [of('one', 'a.tar', './a.tar'), of('two', join(folder, 'a.tar'))];
  const found = await resolveArchives([image('app'), ...chains], signal);
  expect([...found.keys()]).toEqual([archiveKey(folder, { archive: 'a.tar' })]);
  expect(found.values().next().value).toMatchObject({ blob: { file: join(folder, 'a.tar'), size: 1024 } });
});

it('keeps the error of each archive, but for a cancellation', async () => {
  writeFileSync(join(folder, 'a.tar'), 'no tar');
  const found = await resolveArchives([of('one', 'a.tar', 'b.tar')], signal);
  expect([...found.values()]).toMatchObject([{ code: 'corrupt' }, { code: 'not-found' }]);
  await expect(resolveArchives([of('one', 'a.tar')], AbortSignal.abort())).rejects.toMatchObject({
    code: 'cancelled',
  });
});

it('reads nothing for chains that are suspended', async () => {
  const suspended = of('one', 'none.tar');
  suspended.spec.suspend = true;
  expect(await resolveArchives([suspended], signal)).toEqual(new Map());
});
