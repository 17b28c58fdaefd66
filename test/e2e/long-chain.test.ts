/** Chains as long as merging allows, from YAML to a mount. */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { createEmbeddedHost } from '../../src/hosts/embedded/embedded-host.ts';
import { MAX_MERGED_LAYERS } from '../../src/hosts/host.ts';
import { type LayerItem, layerItems } from '../support/host-layers.ts';
import { isRoot, requireOrSkip } from '../support/requirements.ts';
import { World } from './world.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const kernel = requireOrSkip('root and kernel EROFS mounts', isRoot && capabilities['view.Kernel'].available);

/** Each layer adds a file, replaces one, takes one of the layer below away, and links to the lowest. */
function layers(count: number): LayerItem[][] {
  return Array.from({ length: count }, (_, index) => {
    const below: Record<string, null> = index === 0 ? {} : { [`dir/passing-${index - 1}`]: null };
    return [
      ...layerItems({
        [`own/${index}`]: `of ${index}`,
        top: `${index}`,
        [`dir/passing-${index}`]: '',
        ...below,
      }),
      index === 0
        ? { name: 'Files/lowest', type: 'file', content: Buffer.alloc(5000, 'l') }
        : { name: `Files/link-${index}`, type: 'hard-link', linkName: 'Files/lowest' },
    ];
  });
}

async function worldOf(count: number): Promise<World> {
  const world = new World();
  await world.image('app', layers(count));
  world.write('manifests/app.yaml', world.appText().replace('ForkedCIM', 'BlockCIM'));
  return world;
}

describe('a chain of as many layers as can be merged', () => {
  test.runIf(kernel)('is applied as block CIMs, merged, and shown', { timeout: 120_000 }, async () => {
    const world = await worldOf(MAX_MERGED_LAYERS);
    await world.apply();
    await world.expectEmptyPlan();
    const shown = (path: string) => readFileSync(`${world.mountPoint}/${path}`, 'utf8');
    expect(shown('top')).toBe(`${MAX_MERGED_LAYERS - 1}`);
    expect(readdirSync(`${world.mountPoint}/own`)).toHaveLength(MAX_MERGED_LAYERS);
    expect(readdirSync(`${world.mountPoint}/dir`)).toEqual([`passing-${MAX_MERGED_LAYERS - 1}`]);
    expect(shown('own/0')).toBe('of 0');
    expect(shown(`link-${MAX_MERGED_LAYERS - 1}`)).toBe('l'.repeat(5000));
  });

  test('one layer more is refused before anything is unpacked', async () => {
    const world = await worldOf(MAX_MERGED_LAYERS + 1);
    expect((await world.apply(1)).stdout).toContain('129 layers, and at most 128 can be merged');
    expect(existsSync(`${world.root}/snapshots`) ? readdirSync(`${world.root}/snapshots`) : []).toEqual([]);
  });
});
