/** What `cimlet agent` runs: sources, agent and API wired together, from start to stop. Loaded by that command only. */

import { hostname } from 'node:os';
import { resolve } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import type { Command } from 'commander';
import { type DestinationStream, type Logger, pino } from 'pino';
import { Agent, type AgentOptions } from '../agent/agent.ts';
import { LogFile } from '../agent/log-file.ts';
import { runNotifier } from '../agent/notifications/notifier.ts';
import { CimletError } from '../errors.ts';
import type { BlobStore } from '../images/blob-store.ts';
import { removeGarbage } from '../images/garbage.ts';
import { parseDuration, parseSize } from '../manifests/quantities.ts';
import type { GcConfig } from '../manifests/types.gen.ts';
import { lookForImageGarbage } from '../reconciler/collect-garbage.ts';
import type { HostLabels } from '../reconciler/host-labels.ts';
import { timerMs } from '../reconciler/retry-policy.ts';
import { AgentServer } from '../server/server.ts';
import type { ServiceProcess } from '../service/service-manager.ts';
import { openOrRecoverState } from '../state/recover.ts';
import { keepReserve, useReserve } from '../state/reserve.ts';
import type { State } from '../state/state.ts';
import type { AgentCommandOptions } from './agent.ts';
import { type AgentSettings, type Configuration, openConfiguration, openSettings } from './agent-settings.ts';
import { applyConfig } from './configuration.ts';
import type { CliContext } from './context.ts';
import { type Session, withWriter } from './session.ts';
import { listenForInterruption } from './signals.ts';
import { formatBytes, plural } from './text.ts';

const DEFAULT_RESYNC = '5m';
const DEFAULT_PRUNE_LIMIT = 50;
const PRUNE_HOLD_MS = 60 * 60_000;

/** Follows what the command's options name until it is told to stop. `service`: what this process is to the system. */
export async function runAgent(
  context: CliContext,
  command: Command,
  service: ServiceProcess | undefined,
): Promise<void> {
  // It lives for months and mostly waits: without this V8 lets the garbage of a large root grow to twice what is in use.
  setFlagsFromString('--optimize-for-size');
  const given = command.optsWithGlobals() as AgentCommandOptions;
  await withLog(given, async (openLog) => {
    const loaded = await openConfiguration(given);
    const log = openLog(loaded.config.logLevel);
    await run({ context, options: applyConfig(given, loaded, command, context), loaded, log, service });
  });
}

/** Standard output, unless a file is named. What ends the agent is said there too then: nobody may see what is printed. */
async function withLog(
  { logFile }: AgentCommandOptions,
  use: (open: (level?: string) => Logger) => Promise<void>,
): Promise<void> {
  const open = (destination: DestinationStream) => (level?: string) =>
    pino({ name: 'cimlet', level: level ?? 'info' }, destination);
  if (logFile === undefined) return use(open(pino.destination({ sync: true })));
  const file = new LogFile(resolve(logFile));
  const logFatal = (error: unknown) => {
    const { code, hint, stack } = error as { code?: string; hint?: string; stack?: string };
    const isBug = !(error instanceof CimletError);
    open(file)().fatal(
      isBug ? { stack } : { code, hint },
      error instanceof Error ? error.message : String(error),
    );
  };
  process.on('uncaughtExceptionMonitor', logFatal);
  try {
    await use(open(file));
  } catch (error) {
    logFatal(error);
    throw error;
  } finally {
    process.off('uncaughtExceptionMonitor', logFatal);
    file.close();
  }
}

interface Run {
  context: CliContext;
  options: AgentCommandOptions & { labels: HostLabels };
  loaded: Configuration;
  log: Logger;
  service: ServiceProcess | undefined;
}

async function run(running: Run): Promise<void> {
  const { context, options, loaded, log, service } = running;
  const deadlineMs = timerMs(options.stopTimeout);
  const settings = await openSettings(loaded, options.root);
  const onDeadline = () => {
    log.error({ after: options.stopTimeout }, 'what is running takes too long; stopped without it');
    service?.end(1);
    process.exit(1);
  };
  const work = async (session: Session) => {
    const interruption = listenForInterruption((message) => {
      log.info({}, message);
      // Whatever is cut off here is found and finished, or cleaned up, by the next start.
      setTimeout(onDeadline, deadlineMs).unref();
    }, service?.signal);
    try {
      await serve(running, session, settings, interruption.signal);
    } finally {
      interruption.stop();
      await Promise.all(settings.sources.map(({ source }) => source.close()));
    }
  };
  await withWriter(context, options, 'agent', work, (root) => openOwnState(root, log));
}

async function serve(
  { context, options, loaded: { config }, log, service }: Run,
  { engine, state, images }: Session,
  { tcp, hooks, receivers, sources }: AgentSettings,
  signal: AbortSignal,
): Promise<void> {
  const socket = context.services.agentAddress(options.root);
  const { version } = context;
  const server = new AgentServer({ engine, state, version, socket, tcp, hooks, log });
  const isDiskFull = !keepReserve(options.root);
  const agent = new Agent({
    engine,
    state,
    sources,
    resyncMs: timerMs(config.intervals?.resync ?? DEFAULT_RESYNC),
    largestPrune: (config.pruneLimit ?? DEFAULT_PRUNE_LIMIT) / 100,
    pruneHoldMs: PRUNE_HOLD_MS,
    labels: options.labels,
    isDiskFull,
    gc: garbageCollection(config.gc ?? {}, { state, store: images.store, root: options.root, log }),
    log,
    onEvent: (event) => server.onEvent(event),
    onPlanned: (planned, running) => server.onPlanned(planned, running),
    onRound: (round) => server.onRound(round),
  });
  await server.open(agent);
  if (tcp !== undefined) log.info({ host: tcp.host, port: server.port }, 'listening');
  log.info({ version, root: options.root, sources: sources.length }, 'started');
  service?.ready();
  const stop = new AbortController();
  const ended = AbortSignal.any([signal, stop.signal]);
  const parts = [
    agent.run(ended),
    runNotifier({ state, receivers, host: hostname(), log, onTold: (told) => server.onTold(told) }, ended),
  ];
  try {
    await Promise.all(parts);
  } finally {
    stop.abort();
    await Promise.allSettled(parts);
    await server.close();
  }
  log.info({}, 'stopped');
}

function openOwnState(root: string, log: Logger): State {
  useReserve(root);
  const { state, setAside } = openOrRecoverState(root);
  if (setAside !== undefined) {
    const message = `the state database was damaged; it is ${setAside} now, and what is declared is found again on the host`;
    state.recordEvent({ key: 'Host', type: 'Warning', reason: 'StateRebuilt', message });
    log.error({}, message);
  }
  return state;
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
      keepReserve(root);
      const { images, blobs, bytes } = garbage;
      if (images.length + blobs.length === 0) return;
      const message = `removed ${plural(images.length, 'image')} and ${plural(blobs.length, 'blob')} that nothing needs, ${formatBytes(bytes)}`;
      state.recordEvent({ key: 'Host', type: 'Normal', reason: 'GarbageCollected', message });
      log.info({ images: images.length, blobs: blobs.length, bytes }, message);
    },
  };
}
