/**
 * Runs conformance cases inside a Windows process, one after the other, as the test runner asks over a socket.
 * Arguments: the port, and which host to run them on.
 */

import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Capabilities, Host } from '../../src/hosts/host.ts';
import { createWindowsHost } from '../../src/hosts/windows/windows-host.ts';
import { withWindowsFixture } from '../hosts/windows/fixture.ts';
import { connectChannel } from '../support/line-channel.ts';
import { conformanceCases } from './cases.ts';
import type { HostFixture } from './host.ts';
import { openMemoryHost, withMemoryFixture } from './memory-fixture.ts';
import { snapshotterCases } from './snapshotter.ts';
import { withSnapshotter } from './snapshotter-fixture.ts';

export type DriverMessage =
  | { kind: 'ready'; platform: string; release: string; capabilities: Capabilities }
  | { kind: 'passed' }
  | { kind: 'failed'; error: string };
export interface DriverRequest {
  run: string;
}

interface Driven {
  capabilities(): Promise<Capabilities>;
  /** Undefined when there is no such case. */
  run(name: string): Promise<void> | undefined;
}

const windowsCapabilities = () => createWindowsHost({ root: join(tmpdir(), 'nothing-here') }).capabilities();
const named = <Case extends { name: string }>(cases: readonly Case[], wanted: string) =>
  cases.find(({ name }) => name === wanted);

const HOSTS: Readonly<Record<string, Driven>> = {
  memory: {
    capabilities: () => openMemoryHost().capabilities(),
    run: (name) => {
      const found = named(conformanceCases, name);
      return found && withMemoryFixture(found.run);
    },
  },
  windows: {
    capabilities: windowsCapabilities,
    run: (name) => {
      const found = named(conformanceCases, name);
      return found && withWindowsFixture((fixture) => runAndDismount(fixture, found.run));
    },
  },
  'windows snapshotter': {
    capabilities: windowsCapabilities,
    run: (name) => {
      const found = named(snapshotterCases, name);
      const open = (root: string) => createWindowsHost({ root });
      return found && withSnapshotter('BlockCIM', open, found.run, (_, host) => dismountAll(host));
    },
  },
};

/** Volumes outlive the process, and another case's would be in the way. */
async function runAndDismount(
  fixture: HostFixture,
  run: (fixture: HostFixture) => Promise<void>,
): Promise<void> {
  try {
    await run(fixture);
  } finally {
    await dismountAll(await fixture.reopen());
  }
}

async function dismountAll(host: Host): Promise<void> {
  const { signal } = new AbortController();
  for (const { volumeGuid } of (await host.observe({ signal })).mounts)
    await host.dismount(volumeGuid, { signal });
}

async function runCase(host: Driven, name: string): Promise<DriverMessage> {
  try {
    const run = host.run(name);
    if (run === undefined) return { kind: 'failed', error: `no case ${name}` };
    await run;
    return { kind: 'passed' };
  } catch (error) {
    return { kind: 'failed', error: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
}

const [port, kind = ''] = process.argv.slice(2);
const host = HOSTS[kind];
if (host === undefined) throw new Error(`no host ${kind}`);
const channel = await connectChannel<DriverMessage, DriverRequest>(Number(port));
channel.send({
  kind: 'ready',
  platform: process.platform,
  release: release(),
  capabilities: await host.capabilities(),
});
for (;;) {
  const request = await channel.receive();
  if (request === undefined) break;
  channel.send(await runCase(host, request.run));
}
channel.close();
