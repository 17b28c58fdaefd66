/**
 * The running agent: from a saved file and from a push to reconciled and to mounted, on a small root; looking again, planning,
 * saving and idling on one as large as a host's gets; and Terraform's plan beside it, where that is installed.
 */

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { connectAgent } from '../src/cli/agent-client.ts';
import { agentSocket } from '../src/server/address.ts';
import { writeSmallImage } from './fixtures.ts';
import { medianSeconds, report } from './report.ts';
import { RunningAgent } from './running-agent.ts';
import { makeScaleRoot, manifestOf, nameOf, type Scale } from './scale-root.ts';
import { medianTerraformPlan } from './terraform.ts';

const RUNS = 7;
/** 10,000 snapshots. */
const LARGE: Scale = { images: 1000, layersPerImage: 10, mounts: 500 };
const IDLE_MS = 60_000;
const SECRET = 'sesame';

export async function run(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'cimlet-bench-agent-'));
  try {
    await measureSaves(makeFolder(directory, 'saves'));
    await measurePushes(makeFolder(directory, 'pushes'));
    await measureLargeRoot(makeFolder(directory, 'large'));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function makeFolder(directory: string, name: string): string {
  const folder = join(directory, name);
  mkdirSync(folder);
  return folder;
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
  const server = join(directory, 'server.git');
  const git = (...args: string[]) =>
    execFileSync('git', ['-c', 'user.name=Ann', '-c', 'user.email=ann@example.com', ...args], {
      cwd: work,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
  git('init', '--quiet', '--bare', '--initial-branch=main', server);
  git('init', '--quiet', '--initial-branch=main');
  git('remote', 'add', 'origin', server);
  let edition = 0;
  const commit = () => {
    writeFileSync(
      join(work, 'app.yaml'),
      appManifest(directory, 'here', ++edition, join(directory, 'image')),
    );
    git('add', '--all');
    git('commit', '--quiet', '--message', 'change');
  };
  commit();
  git('push', '--quiet', 'origin', 'main');
  writeFileSync(join(directory, 'secret'), SECRET);
  const source = `{name: fleet, interval: 1h, git: {url: "${server}", ref: {branch: main}, webhook: {provider: GitLab, secretFile: secret}}}`;
  await withAgent(directory, source, async (agent) => {
    await agent.untilReconciled();
    const pushAndTell = async () => {
      git('push', '--quiet', 'origin', 'main');
      await tellPush(agentSocket(join(directory, 'root')));
      await agent.untilReconciled();
    };
    const seconds = await medianSeconds(RUNS, pushAndTell, commit);
    report({ case: 'agent: git push (webhook) to reconciled', value: seconds, unit: 's' });
  });
}

async function measureLargeRoot(directory: string): Promise<void> {
  const { root, manifests, views } = await makeScaleRoot(directory, LARGE);
  const snapshots = `${LARGE.images * LARGE.layersPerImage} snapshots`;
  await withAgent(directory, '{name: apps, folder: {path: manifests}}', async (agent) => {
    await agent.untilReconciled();
    const client = await connectAgent(agentSocket(root));
    if (client === undefined) throw new Error('the agent listens nowhere');
    // What the first one does takes its time.
    await untilQuiet(agent);
    const before = agent.cpuSeconds();
    const resync = await medianSeconds(RUNS, async () => {
      await client.post('/api/v1/reconcile', {});
      await agent.untilRound();
    });
    const resyncCpu = (agent.cpuSeconds() - before) / RUNS;
    report({ case: `agent: resync of ${snapshots}, nothing to do`, value: resync, unit: 's' });
    report({ case: 'agent: CPU time of that', value: resyncCpu, unit: 's' });
    const signal = new AbortController().signal;
    const plan = await medianSeconds(RUNS, () => client.get('/api/v1/plan', signal));
    const peerValue = await medianTerraformPlan(join(directory, 'terraform'), 10_000);
    report({
      case: `agent: plan, ${snapshots}, ${2 * LARGE.images + LARGE.mounts} resources`,
      value: plan,
      unit: 's',
      ...(peerValue === undefined ? {} : { peer: 'terraform plan, 10000 resources', peerValue }),
    });
    let edition = 0;
    const saved = await medianSeconds(
      RUNS,
      () => agent.untilReconciled(),
      () => replace(join(manifests, `${nameOf(7)}.yaml`), manifestOf(nameOf(7), views, `e${++edition}`)),
    );
    report({ case: `agent: save to reconciled, ${snapshots}`, value: saved, unit: 's' });
    await untilQuiet(agent);
    const idleFrom = agent.cpuSeconds();
    await pause(IDLE_MS);
    const idle = (agent.cpuSeconds() - idleFrom) / (IDLE_MS / 1000);
    const resyncs = resyncCpu / (5 * 60);
    report({
      case: 'agent: idle, of a core (a resync every 5 min in it)',
      value: 100 * (idle + resyncs),
      unit: '%',
    });
    report({ case: 'agent: idle, resident memory', value: agent.residentMiB(), unit: 'MiB' });
  });
}

/** Without anything to do for a while, its rounds so far forgotten. */
async function untilQuiet(agent: RunningAgent): Promise<void> {
  for (let used = -1; agent.cpuSeconds() - used > 0.1; ) {
    used = agent.cpuSeconds();
    await pause(4000);
  }
  agent.forget();
}

async function withAgent(
  directory: string,
  source: string,
  use: (agent: RunningAgent) => Promise<void>,
): Promise<void> {
  const config = join(directory, 'cimlet.yaml');
  writeFileSync(config, `root: root\nlogLevel: debug\nsources: [${source}]\n`);
  const agent = new RunningAgent(config);
  try {
    await use(agent);
  } finally {
    await agent.stop();
  }
}

/** An extracted view, which needs no privilege and is gone with the folder. */
function appManifest(directory: string, place: string, edition: number, image = '../image'): string {
  const header = 'apiVersion: cimlet.dev/v1alpha1\n';
  return `${header}kind: Image
metadata: {name: app, labels: {edition: "${edition}"}}
spec: {source: {ociLayout: "${image}"}, platform: {os: windows, architecture: amd64}}
---
${header}kind: Mount
metadata: {name: app}
spec: {image: app, path: "${join(directory, 'views', place)}", view: Extracted}
`;
}

/** As editors save. */
function replace(file: string, text: string): void {
  writeFileSync(`${file}.new`, text);
  renameSync(`${file}.new`, file);
}

function tellPush(socketPath: string): Promise<void> {
  const body = JSON.stringify({ ref: 'refs/heads/main' });
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json', 'x-gitlab-token': SECRET };
    const sent = request({ socketPath, path: '/hooks/fleet', method: 'POST', headers }, (response) => {
      response.resume();
      if (response.statusCode === 202) response.on('end', resolve);
      else reject(new Error(`the webhook was answered with ${response.statusCode}`));
    });
    sent.on('error', reject);
    sent.end(body);
  });
}
