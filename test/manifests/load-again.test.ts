import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { ManifestContent } from '../../src/manifests/find-files.ts';
import { loadManifestContents } from '../../src/manifests/load.ts';
import { manifest } from './support.ts';

function file(name: string, text: string): ManifestContent {
  return { path: join('/manifests', name), name, relativeName: name, bytes: Buffer.from(text) };
}

const image = file('image.yaml', manifest('Image', { source: { ociLayout: 'x' } }, { name: 'app' }));
const chain = (of: string) =>
  file('chain.yaml', manifest('LayerChain', { layers: [{ image: of }] }, { name: 'app' }));

it('a file that did not change is not parsed again, and is checked against the others again', () => {
  const good = chain('app');
  const first = loadManifestContents([image, good]);
  expect(first.problems).toEqual([]);
  const again = loadManifestContents([image, good]);
  expect(again).toEqual(first);
  expect(again.resources[0]).toBe(first.resources[0]);
  expect(loadManifestContents([good]).problems.map(({ code }) => code)).toEqual(['dangling-reference']);
  expect(loadManifestContents([image, chain('other')]).problems.map(({ code }) => code)).toEqual([
    'dangling-reference',
  ]);
  expect(loadManifestContents([image, good]).problems).toEqual([]);
});
