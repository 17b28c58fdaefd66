/**
 * The running agent: from a saved file and from a push to reconciled and to mounted, on a small root; looking again, planning,
 * saving and idling on one as large as a host's gets; and Terraform's plan beside it, where that is installed.
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { measureKernelMounts, measureLargePushes, measureLargeRoot, measurePlans } from './agent-scale.ts';
import { appManifest, writeSmallImage } from './fixtures.ts';
import { PushedManifests } from './pushed-manifests.ts';
import { medianSeconds, report } from './report.ts';
import { makeFolder, replace, withAgent } from './running-agent.ts';

const RUNS = 7;

export async function run(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'cimlet-bench-agent-'));
  try {
    await measureSaves(makeFolder(directory, 'saves'));
    await measurePushes(makeFolder(directory, 'pushes'));
    const large = makeFolder(directory, 'large');
    await measureLargePushes(large, await measureLargeRoot(large));
    rmSync(large, { recursive: true });
    await measurePlans(makeFolder(directory, 'plans'));
    await measureKernelMounts(makeFolder(directory, 'mounts'));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function measureSaves(directory: string): Promise<void> {
  await writeSmallImage(join(directory, 'image'));
  const manifests = makeFolder(directory, 'manifests');
  let edition = 0;
  const save = (place: string) =>
    replace(join(manifests, 'app.yaml'), appManifest(directory, place, ++edition));
  save('here');
  await withAgent(directory, '{name: apps, folder: {path: manifests}}', async (agent) => {
    await agent.untilReconciled();
    const reconciled = await medianSeconds(
      RUNS,
      () => agent.untilReconciled(),
      () => save('here'),
    );
    report({ case: 'agent: save to reconciled (0.1 s debounce in it)', value: reconciled, unit: 's' });
    let place = 0;
    const mounted = await medianSeconds(
      RUNS,
      () => agent.until(({ msg, action }) => msg === 'done' && action === 'Mount/app'),
      () => save(`place-${place++}`),
    );
    report({ case: 'agent: save to mounted elsewhere (the same)', value: mounted, unit: 's' });
  });
}

async function measurePushes(directory: string): Promise<void> {
  await writeSmallImage(join(directory, 'image'));
  const work = makeFolder(directory, 'work');
  let edition = 0;
  const write = (place: string) =>
    writeFileSync(join(work, 'app.yaml'), appManifest(directory, place, ++edition, join(directory, 'image')));
  write('here');
  const pushed = new PushedManifests(directory, work);
  const commit = (place: string) => {
    write(place);
    pushed.commit();
  };
  await withAgent(directory, pushed.source, async (agent) => {
    await agent.untilReconciled();
    const reconciled = await medianSeconds(
      RUNS,
      async () => {
        await pushed.push();
        await agent.untilReconciled();
      },
      () => commit('here'),
    );
    report({ case: 'agent: git push (webhook) to reconciled', value: reconciled, unit: 's' });
    let place = 0;
    const mounted = await medianSeconds(
      RUNS,
      async () => {
        await pushed.push();
        await agent.until(({ msg, action }) => msg === 'done' && action === 'Mount/app');
      },
      () => commit(`place-${place++}`),
    );
    report({ case: 'agent: git push (webhook) to mounted elsewhere', value: mounted, unit: 's' });
  });
}
