/**
 * The running agent: from a saved file and from a push to reconciled and to mounted, on a small root; looking again, planning,
 * saving and idling on one as large as a host's gets; and Terraform's plan beside it, where that is installed.
 */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { agentSocket } from '../src/server/address.ts';
import { measureKernelMounts, measureLargeRoot, measurePlans } from './agent-scale.ts';
import { writeSmallImage } from './fixtures.ts';
import { medianSeconds, report } from './report.ts';
import { makeFolder, replace, withAgent } from './running-agent.ts';

const RUNS = 7;
const SECRET = 'sesame';

export async function run(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'cimlet-bench-agent-'));
  try {
    await measureSaves(makeFolder(directory, 'saves'));
    await measurePushes(makeFolder(directory, 'pushes'));
    await measureLargeRoot(makeFolder(directory, 'large'));
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
