/** Which images are known to have a layer. */

import { expect, it } from 'vitest';
import { KnownLayers } from '../../../src/images/registry/known-layers.ts';
import { parseReference } from '../../../src/images/registry/reference.ts';
import { sha256 } from '../../support/stored-blob.ts';

const HOUR = 3_600_000;
const digest = sha256(Buffer.from('layer'));
const descriptor = { mediaType: 'none', digest, size: 5, urls: [], annotations: {} };

/** Images are added as they are resolved; nobody is asked anything. */
function knowing() {
  const clock = { now: 0 };
  const known = new KnownLayers(() => clock.now);
  return {
    clock,
    add(image: string) {
      const reference = parseReference(image);
      known.add({ descriptor, foreignLayers: 'never', reference });
    },
    find: (image?: string) => known.find(digest, image).map(({ reference }) => reference.canonical),
  };
}

it('names the image that it is for, then one of each other repository, the latest first', () => {
  const { add, find } = knowing();
  for (const image of ['a.io/x:1', 'a.io/y:1', 'b.io/x:1', 'a.io/x:2', 'a.io/y:2', 'a.io/y:1']) add(image);
  expect(find('b.io/x:1')).toEqual(['b.io/x:1', 'a.io/y:1', 'a.io/x:2']);
  expect(find('a.io/x:1')).toEqual(['a.io/x:1', 'a.io/y:1', 'b.io/x:1']);
  expect(find()).toEqual(['a.io/y:1', 'a.io/x:2', 'b.io/x:1']);
});

it('forgets images that are resolved no more', () => {
  const { clock, add, find } = knowing();
  for (const image of ['a.io/gone:1', 'a.io/kept:1']) add(image);
  clock.now += 20 * HOUR;
  add('a.io/kept:1');
  clock.now += 20 * HOUR;
  add('a.io/new:1');
  expect(find('a.io/gone:1')).toEqual(['a.io/new:1', 'a.io/kept:1']);
});
