import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkSavedPlan, savePlan } from '../../src/reconciler/saved-plan.ts';
import type { SavedPlan } from '../../src/reconciler/types.ts';
import { chain, image, mount, openWorld, type World } from './support.ts';

let world: World;
beforeEach(() => {
  world = openWorld();
  world.images.set('app', 'ab');
});
afterEach(() => world.close());

const APP = [image('app'), chain('app'), mount('app')];
const files = [{ path: '/manifests/app.yaml', digest: 'sha256:1' }];

async function save(): Promise<SavedPlan> {
  const inputs = { arguments: ['-f', 'app.yaml'], files, targets: [], prune: true };
  return JSON.parse(JSON.stringify(savePlan(await world.plan(APP), inputs))) as SavedPlan;
}

describe('a saved plan', () => {
  it('fits while nothing moved, whatever the wording', async () => {
    const saved = await save();
    const plan = await world.plan(APP);
    plan.actions[0]!.detail = 'said otherwise';
    checkSavedPlan(saved, { plan, files });
  });

  it('is refused when a file, the host or the image moved, naming it', async () => {
    const saved = await save();
    const check = async (now = files) => checkSavedPlan(saved, { plan: await world.plan(APP), files: now });
    const moved = [
      { path: '/manifests/app.yaml', digest: 'sha256:2' },
      { path: '/manifests/b.yaml', digest: 'x' },
    ];
    await expect(check(moved)).rejects.toThrow(/\/manifests\/app.yaml changed; \/manifests\/b.yaml is new/);
    await expect(check([])).rejects.toThrow(/app.yaml is gone/);
    world.images.set('app', 'ac');
    await expect(check()).rejects.toThrow(/create Image\/app differs/);
    world.images.set('app', 'ab');
    await world.apply([image('app')]);
    await expect(check()).rejects.toMatchObject({
      code: 'failed-precondition',
      message: expect.stringContaining('there is nothing to create any more for Image/app'),
    });
  });

  it('is refused when it was edited', async () => {
    const saved = await save();
    saved.plan.actions.pop();
    const plan = await world.plan(APP);
    expect(() => checkSavedPlan(saved, { plan, files })).toThrow(/changed after it was saved/);
  });
});
