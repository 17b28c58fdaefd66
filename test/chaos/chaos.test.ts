import { describe, expect, test } from 'vitest';
import { createEmbeddedHost } from '../../src/hosts/embedded/embedded-host.ts';
import { createImageMachine } from '../../src/machines/image-machine.ts';
import { createMergeMachine } from '../../src/machines/merge-machine.ts';
import { createMountMachine } from '../../src/machines/mount-machine.ts';
import { createSnapshotMachine } from '../../src/machines/snapshot-machine.ts';
import { canRunRegistry } from '../images/registry/registry-fixture.ts';
import { isRoot, requireOrSkip } from '../support/requirements.ts';
import { runChaos } from './chaos.ts';
import { EFFECTS, HOST_TRANSITIONS } from './transitions.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const kernel = requireOrSkip('root and kernel EROFS mounts', isRoot && capabilities['view.Kernel'].available);

test('no transition of a machine is left out', () => {
  const never = () => Promise.reject(new Error('nothing is done here'));
  const effects = new Proxy({}, { get: () => never }) as never;
  const machines = [createImageMachine, createSnapshotMachine, createMergeMachine, createMountMachine];
  const states = machines
    .map((create) => create(effects))
    .flatMap(({ id, config }) =>
      Object.entries(config.states ?? {})
        .filter(([, state]) => state.invoke !== undefined)
        .map(([name]) => `${id}.${name}`),
    );
  expect(Object.keys(EFFECTS).sort()).toEqual(states.sort());
});

/** `npm test` runs on two releases of Node: each takes half of the transitions. */
const half = process.versions.node.startsWith('22.') ? 'before' : 'after';

describe.runIf(kernel && canRunRegistry)('chaos, a short run of it', () => {
  // It is processes that are waited for: on a busy machine several times as long.
  const options = { timeout: 600_000 };
  test('everything comes to what is declared, and nothing else is left', options, async () => {
    const transitions = HOST_TRANSITIONS.filter(({ when }) => when === half);
    await runChaos({ transitions, rounds: 2, seed: 20261120, say: (line) => console.log(line) });
  });
});
