/** What `cimlet agent` runs: sources, agent and API wired together, from start to stop. Loaded by that command only. */

import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import type { Command } from 'commander';
import { type Logger, pino } from 'pino';
import { Agent, type AgentOptions } from '../agent/agent.ts';
import type { FollowedSource } from '../agent/declared-sources.ts';
import { runNotifier } from '../agent/notifications/notifier.ts';
import { CimletError } from '../errors.ts';
import type { BlobStore } from '../images/blob-store.ts';
import { removeGarbage } from '../images/garbage.ts';
import { loadAgentConfig } from '../manifests/agent-config.ts';
import { formatField } from '../manifests/field-path.ts';
import { parseDuration, parseSize } from '../manifests/quantities.ts';
import type { GcConfig } from '../manifests/types.gen.ts';
import { lookForImageGarbage } from '../reconciler/collect-garbage.ts';
import type { HostLabels } from '../reconciler/host-labels.ts';
import { timerMs } from '../reconciler/retry-policy.ts';
import { sourceIdOf } from '../reconciler/sources.ts';
import { AgentServer } from '../server/server.ts';
import { createFolderSource } from '../sources/folder-source.ts';
import { createGitSource } from '../sources/git-source.ts';
import { openOrRecoverState } from '../state/recover.ts';
import type { State } from '../state/state.ts';
import type { AgentCommandOptions } from './agent.ts';
import { type Configuration, openHooks, openListener, openReceivers } from './agent-settings.ts';
import { applyConfig } from './configuration.ts';
import type { CliContext } from './context.ts';
import { type Session, withWriter } from './session.ts';
import { listenForInterruption } from './signals.ts';
import { formatBytes, plural } from './text.ts';

const DEFAULT_RESYNC = '5m';
const LARGEST_PRUNE = 0.5;

/** Follows what the command's options name until it is told to stop. */
export async function runAgent(context: CliContext, command: Command): Promise<void> {
  // It lives for months and mostly waits: without this V8 lets the garbage of a large root grow to twice what is in use.
  setFlagsFromString('--optimize-for-size');
  const given = command.optsWithGlobals() as AgentCommandOptions;
  const loaded = await configOf(given);
  await run(context, applyConfig(given, loaded, command, context), loaded);
}

async function configOf({ config, filename }: AgentCommandOptions): Promise<Configuration> {
  if (config !== undefined) return loadAgentConfig(config);
  if (filename === undefined) {
    throw new CimletError('failed-precondition', 'agent: nothing to follow', {
      hint: 'name a folder with -f, or a configuration with --config',
    });
  }
  const source = { name: 'manifests', folder: { path: resolve(filename) } };
  const locate = formatField;
  return { config: { sources: [source] }, file: undefined, baseDirectory: process.cwd(), locate };
}

async function run(
  context: CliContext,
  options: AgentCommandOptions & { labels: HostLabels },
  loaded: Configuration,
): Promise<void> {
  const { config } = loaded;
  const log = pino({ name: 'cimlet', level: config.logLevel ?? 'info' }, pino.destination({ sync: true }));
  const deadline = timerMs(options.stopTimeout);
  const tcp = await openListener(loaded);
  const hooks = await openHooks(loaded);
  const receivers = await openReceivers(loaded);
  const work = async ({ engine, state, images }: Session) => {
    const sources = openSources(loaded, options.root);
    const interruption = listenForInterruption((message) => {
      log.info({}, message);
      // Whatever is cut off here is found and finished, or cleaned up, by the next start.
      setTimeout(() => {
        log.error({ after: options.stopTimeout }, 'what is running takes too long; stopped without it');
        process.exit(1);
      }, deadline).unref();
    });
    try {
      const server = new AgentServer({
        engine,
        state,
        version: context.version,
        socket: context.services.agentAddress(options.root),
        tcp,
        hooks,
        log,
      });
      const agent = new Agent({
        engine,
        state,
        sources,
        resyncMs: timerMs(config.intervals?.resync ?? DEFAULT_RESYNC),
        largestPrune: LARGEST_PRUNE,
        labels: options.labels,
        gc: garbageCollection(config.gc ?? {}, { state, store: images.store, root: options.root, log }),
        log,
        onEvent: (event) => server.onEvent(event),
        onRound: (round) => server.onRound(round),
      });
      await server.open(agent);
      if (tcp !== undefined) log.info({ host: tcp.host, port: server.port }, 'listening');
      log.info({ version: context.version, root: options.root, sources: sources.length }, 'started');
      const stop = new AbortController();
      const ended = AbortSignal.any([interruption.signal, stop.signal]);
      const parts = [agent.run(ended), runNotifier({ state, receivers, host: hostname(), log }, ended)];
      try {
        await Promise.all(parts);
      } finally {
        stop.abort();
        await Promise.allSettled(parts);
        await server.close();
      }
      log.info({}, 'stopped');
    } finally {
      interruption.stop();
      await Promise.all(sources.map(({ source }) => source.close()));
    }
  };
  await withWriter(context, options, 'agent', work, (root) => {
    const { state, setAside } = openOrRecoverState(root);
    if (setAside !== undefined) {
      const message = `the state database was damaged; it is ${setAside} now, and what is declared is found again on the host`;
      state.recordEvent({ key: 'Host', type: 'Warning', reason: 'StateRebuilt', message });
      log.error({}, message);
    }
    return state;
  });
}

/** Sources keep what is theirs in `<root>/sources/<name>`. What `-f` names is the source that it is for `apply -f`. */
function openSources({ config, file, baseDirectory }: Configuration, root: string): FollowedSource[] {
  return (config.sources ?? []).map(({ name, folder, git, interval, prune = true, suspend = false }) => {
    const options = { cacheDirectory: join(root, 'sources', name), baseDirectory };
    const isSuspended = suspend !== false;
    if (folder !== undefined) {
      const id = file === undefined ? sourceIdOf([folder.path]) : name;
      return { source: createFolderSource({ name, folder, interval }, options), id, prune, isSuspended };
    }
    if (git !== undefined)
      return { source: createGitSource({ name, git, interval }, options), id: name, prune, isSuspended };
    throw new CimletError('invalid-manifest', `source ${name}: it has neither folder nor git`);
  });
}

/** Images and blobs only: layers that nothing needs are removed by every round. */
function garbageCollection(
  config: GcConfig,
  { state, store, root, log }: { state: State; store: BlobStore; root: string; log: Logger },
): AgentOptions['gc'] {
  const { enabled = true, interval = '1h', minAge = '24h', keepStorage } = config;
  const { highThresholdPercent = 85, lowThresholdPercent = 80 } = config;
  if (!enabled) return undefined;
  const policy = {
    minAgeMs: parseDuration(minAge),
    keepBytes: keepStorage === undefined ? undefined : parseSize(keepStorage),
    highPercent: highThresholdPercent,
    lowPercent: Math.min(lowThresholdPercent, highThresholdPercent),
  };
  return {
    intervalMs: parseDuration(interval),
    collect: async (signal) => {
      const garbage = await lookForImageGarbage({ state, store, root, policy });
      await removeGarbage(store, garbage, { now: Date.now(), signal });
      const { images, blobs, bytes } = garbage;
      if (images.length + blobs.length === 0) return;
      const message = `removed ${plural(images.length, 'image')} and ${plural(blobs.length, 'blob')} that nothing needs, ${formatBytes(bytes)}`;
      state.recordEvent({ key: 'Host', type: 'Normal', reason: 'GarbageCollected', message });
      log.info({ images: images.length, blobs: blobs.length, bytes }, message);
    },
  };
}
