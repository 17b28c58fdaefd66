/** The running agent on roots as large as a host's get: looking, planning, a change of one manifest, idling. */

import { spawnSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { connectAgent } from '../src/cli/agent-client.ts';
import { agentSocket } from '../src/server/address.ts';
import { appManifest, writeSmallImage } from './fixtures.ts';
import { PushedManifests } from './pushed-manifests.ts';
import { report } from './report.ts';
import { makeFolder, PROGRAM, type RunningAgent, replace, withAgent } from './running-agent.ts';
import { makeScaleRoot, manifestOf, nameOf, type Scale, type ScaleRoot } from './scale-root.ts';
import { makeTerraformRoot } from './terraform.ts';

const RUNS = 7;
/** 10,000 snapshots. */
const LARGE: Scale = { images: 1000, layersPerImage: 10, mounts: 500 };
const SNAPSHOTS = '10,000 snapshots';
/** 10,000 resources. */
const MANY: Scale = { images: 4000, layersPerImage: 1, mounts: 2000 };
const KERNEL_MOUNTS = 500;
const PLAN_PAIRS = 2;
const IDLE_MS = 60_000;
const MANIFESTS = '{name: apps, folder: {path: manifests}}';

export async function measureLargeRoot(directory: string): Promise<ScaleRoot> {
  const scale = await makeScaleRoot(directory, LARGE);
  await writeSmallImage(join(scale.images, 'real'));
  writeFileSync(join(scale.manifests, 'app.yaml'), realManifest(scale));
  await withAgent(directory, MANIFESTS, async (agent) => {
    await agent.untilReconciled();
    report({
      case: `agent: CPU time to its first round, ${SNAPSHOTS}`,
      value: agent.cpuSeconds(),
      unit: 's',
    });
    const client = await clientOf(scale.root);
    const resyncCpu = await measure(agent, `agent: resync of ${SNAPSHOTS}, nothing to do`, async () => {
      await client.post('/api/v1/reconcile', {});
      await agent.untilRound();
    });
    const { signal } = new AbortController();
    await measure(agent, `agent: plan, ${SNAPSHOTS}`, () => client.get('/api/v1/plan', signal));
    for (const { to, file, text } of CHANGES)
      await measure(agent, `agent: save to ${to}, ${SNAPSHOTS} (0.1 s debounce in it)`, async () => {
        replace(join(scale.manifests, file), text(scale));
        await untilDone(agent, to);
      });
    await agent.untilQuiet();
    const idleFrom = agent.cpuSeconds();
    await pause(IDLE_MS);
    const idle = (agent.cpuSeconds() - idleFrom) / (IDLE_MS / 1000);
    const value = 100 * (idle + resyncCpu / (5 * 60));
    report({ case: 'agent: idle, of a core (a resync every 5 min in it)', value, unit: '%' });
    report({ case: 'agent: idle, resident memory', value: agent.residentMiB(), unit: 'MiB' });
  });
  return scale;
}

/** The same manifests from a git repository instead. */
export async function measureLargePushes(directory: string, scale: ScaleRoot): Promise<void> {
  const pushed = new PushedManifests(directory, scale.manifests);
  await withAgent(directory, pushed.source, async (agent) => {
    await agent.untilReconciled();
    for (const { to, file, text } of CHANGES) {
      const commit = () => {
        replace(join(scale.manifests, file), text(scale));
        pushed.commit();
      };
      const push = async () => {
        await pushed.push();
        await untilDone(agent, to);
      };
      await measure(agent, `agent: git push (webhook) to ${to}, ${SNAPSHOTS}`, push, commit);
    }
  });
}

type Outcome = 'reconciled' | 'another spec reconciled' | 'mounted elsewhere';

let edition = 0;
/** Of one resource of many; none says the same twice. */
const CHANGES: readonly { to: Outcome; file: string; text: (scale: ScaleRoot) => string }[] = [
  {
    to: 'reconciled',
    file: `${nameOf(7)}.yaml`,
    text: (scale) => manifestOf(nameOf(7), scale, `e${++edition}`),
  },
  {
    to: 'another spec reconciled',
    file: `${nameOf(7)}.yaml`,
    text: (scale) =>
      manifestOf(nameOf(7), scale).replace('view: Extracted', `view: Extracted\n  timeout: ${++edition}m`),
  },
  // Of the one image whose layers are really there.
  { to: 'mounted elsewhere', file: 'app.yaml', text: realManifest },
];

function realManifest({ images, views }: ScaleRoot): string {
  return appManifest(views, `place-${++edition}`, 0, join(images, 'real'));
}

async function untilDone(agent: RunningAgent, what: Outcome): Promise<void> {
  if (what !== 'mounted elsewhere') return agent.untilReconciled();
  await agent.until(({ msg, action }) => msg === 'done' && action === 'Mount/app');
}

/** One change in 10,000 resources: a view that somebody took away; beside Terraform's plan of as many, one of them changed. */
export async function measurePlans(directory: string): Promise<void> {
  const { root, views } = await makeScaleRoot(directory, MANY);
  const resources = `${2 * MANY.images + MANY.mounts} resources, one change`;
  await withAgent(directory, MANIFESTS, async (agent) => {
    await agent.untilReconciled();
    await agent.untilQuiet();
    rmSync(join(views, nameOf(3)));
    const terraform = makeTerraformRoot(join(directory, 'terraform'), 10_000);
    if (terraform === undefined) console.log('agent: terraform not installed, its plan is left out');
    const client = await clientOf(root);
    const { signal } = new AbortController();
    const askAgent = async () => {
      const { summary } = (await client.get('/api/v1/plan', signal)) as { summary: Record<string, number> };
      if (summary.repair !== 1) throw new Error(`planned: ${JSON.stringify(summary)}`);
    };
    const runCommand = () =>
      void spawnSync(process.execPath, [PROGRAM, 'plan', '--root', root], { stdio: 'ignore' });
    for (let pair = 1; pair <= PLAN_PAIRS; pair++) {
      const answered = await secondsOf(askAgent);
      const value = await secondsOf(runCommand);
      const peerValue = terraform === undefined ? undefined : await secondsOf(() => terraform.plan());
      const peer = peerValue === undefined ? {} : { peer: 'terraform plan', peerValue };
      report({ case: `agent: plan answered, ${resources} (${pair})`, value: answered, unit: 's', ...peer });
      report({ case: `agent: cimlet plan, ${resources} (${pair})`, value, unit: 's', ...peer });
    }
  });
}

/** Views of one image that the kernel shows. Leaves nothing mounted. */
export async function measureKernelMounts(directory: string): Promise<void> {
  await writeSmallImage(join(directory, 'image'));
  const manifests = makeFolder(directory, 'manifests');
  const header = 'apiVersion: cimlet.dev/v1alpha1\n';
  const mountOf = (index: number, place = 'views') =>
    `${header}kind: Mount\nmetadata: {name: ${nameOf(index)}}\nspec: {image: app, path: "${join(directory, place, nameOf(index))}", view: Kernel}\n`;
  writeFileSync(
    join(manifests, 'image.yaml'),
    `${header}kind: Image\nmetadata: {name: app}\nspec: {source: {ociLayout: ../image}, platform: {os: windows, architecture: amd64}}\n`,
  );
  for (let index = 0; index < KERNEL_MOUNTS; index++)
    writeFileSync(join(manifests, `${nameOf(index)}.yaml`), mountOf(index));
  const root = join(directory, 'root');
  const mounts = `${KERNEL_MOUNTS} kernel mounts`;
  try {
    await withAgent(directory, MANIFESTS, async (agent) => {
      await agent.untilReconciled();
      const client = await clientOf(root);
      const { summary } = (await client.get('/api/v1/plan', new AbortController().signal)) as {
        summary: { unchanged: number };
      };
      if (summary.unchanged !== KERNEL_MOUNTS + 1) {
        console.log(`agent: ${mounts} left out, the kernel mounts none here`);
        return;
      }
      await measure(agent, `agent: resync of ${mounts}, nothing to do`, async () => {
        await client.post('/api/v1/reconcile', {});
        await agent.untilRound();
      });
      let place = 0;
      await measure(agent, `agent: save to mounted elsewhere, ${mounts}`, async () => {
        replace(join(manifests, `${nameOf(7)}.yaml`), mountOf(7, `place-${place++}`));
        await agent.until(({ msg, action }) => msg === 'done' && action === `Mount/${nameOf(7)}`);
        await agent.untilRound();
      });
    });
  } finally {
    spawnSync(process.execPath, [PROGRAM, 'delete', '-f', manifests, '--root', root, '--yes'], {
      stdio: 'ignore',
    });
  }
}

/** Reports the median time of `run`, which `before` is no part of, and the processor time of the agent that one takes, which is returned in seconds. */
async function measure(
  agent: RunningAgent,
  name: string,
  run: () => Promise<unknown>,
  before?: () => void,
): Promise<number> {
  await agent.untilQuiet();
  const cpuBefore = agent.cpuSeconds();
  const seconds: number[] = [];
  for (let index = 0; index < RUNS; index++) {
    before?.();
    seconds.push(await secondsOf(run));
  }
  await agent.untilQuiet();
  const cpuSeconds = (agent.cpuSeconds() - cpuBefore) / RUNS;
  const median = seconds.sort((a, b) => a - b)[Math.floor(RUNS / 2)] ?? Number.NaN;
  report({ case: name, value: median, unit: 's' });
  report({ case: 'agent: CPU time of that', value: cpuSeconds, unit: 's' });
  return cpuSeconds;
}

async function secondsOf(run: () => unknown): Promise<number> {
  const start = performance.now();
  await run();
  return (performance.now() - start) / 1000;
}

async function clientOf(root: string): Promise<NonNullable<Awaited<ReturnType<typeof connectAgent>>>> {
  const client = await connectAgent(agentSocket(root));
  if (client === undefined) throw new Error('the agent listens nowhere');
  return client;
}
