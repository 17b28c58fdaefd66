import { expect, it } from 'vitest';
import { labelsOfObserved } from '../../src/cli/configuration.ts';
import type { HostState } from '../../src/hosts/host.ts';

it('another machine that was observed has its own system, and no name that is known here', () => {
  const labels = {
    role: 'web',
    'cimlet.dev/os': 'linux',
    'cimlet.dev/arch': 'arm64',
    'cimlet.dev/hostname': 'here',
  };
  const observed = { host: { kind: 'windows', architecture: 'x64' } } as HostState;
  expect(labelsOfObserved(labels, observed)).toEqual({
    role: 'web',
    'cimlet.dev/os': 'windows',
    'cimlet.dev/arch': 'amd64',
  });
});
