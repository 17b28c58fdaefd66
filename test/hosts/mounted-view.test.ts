import { expect, it } from 'vitest';
import type { ChainId, MountedView, VolumeGuid } from '../../src/hosts/host.ts';
import { isSameView } from '../../src/hosts/mounted-view.ts';

const VIEW: MountedView = {
  volumeGuid: 'v' as VolumeGuid,
  path: '/m',
  chainId: 'c' as ChainId,
  format: 'ForkedCIM',
  view: 'Kernel',
  access: 'ReadOnly',
};

it.each<[string, Partial<MountedView>, boolean]>([
  ['itself', {}, true],
  ['another path', { path: '/n' }, false],
  ['other layers', { chainId: 'd' as ChainId }, false],
  ['another format', { format: 'BlockCIM' }, false],
  ['another kind', { view: 'Extracted' }, false],
  ['another access', { access: 'ReadWrite' }, false],
])('a view and %s', (_name, change, expected) => {
  expect(isSameView(VIEW, { ...VIEW, ...change })).toBe(expected);
});
