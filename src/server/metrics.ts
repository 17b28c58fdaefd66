/** What the agent tells Prometheus. */

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Round } from '../agent/agent.ts';
import type { Told } from '../agent/notifications/notifier.ts';
import type { SourceStatus } from '../agent/source-status.ts';
import type { Kind } from '../manifests/resources.ts';
import type { Planned } from '../reconciler/engine.ts';
import type { ExecutionEvent } from '../reconciler/types.ts';
import type { State } from '../state/state.ts';
import { ActionQueue } from './action-queue.ts';
import type { HookResult } from './hooks.ts';
import { TransferredBytes } from './transferred-bytes.ts';

/** How often the event loop's lag is sampled: by custom every 10 ms, which alone keeps an idle agent awake. */
const LAG_SAMPLED_MS = 1000;

const KINDS: readonly Kind[] = ['Image', 'LayerChain', 'Mount'];

const SECONDS = [0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800];

export interface Metrics {
  onEvent(event: ExecutionEvent): void;
  onPlanned(planned: Planned, running: readonly string[]): void;
  onRound(round: Round): void;
  onHook(source: string, result: HookResult): void;
  onTold(told: Told): void;
  /** In Prometheus' text format. What is counted in the records is counted now. */
  render(): Promise<string>;
  readonly contentType: string;
}

export function createMetrics(state: State, sources: () => SourceStatus[]): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: LAG_SAMPLED_MS });
  const rounds = new Histogram({
    name: 'cimlet_reconcile_duration_seconds',
    help: 'Time that rounds took, from plan to end.',
    labelNames: ['result'],
    buckets: SECONDS,
    registers,
  });
  const actions = new Histogram({
    name: 'cimlet_action_duration_seconds',
    help: 'Time that actions that succeeded took.',
    labelNames: ['kind', 'verb'],
    buckets: SECONDS,
    registers,
  });
  const failures = new Counter({
    name: 'cimlet_action_failures_total',
    help: 'Actions that failed, each attempt counted.',
    labelNames: ['kind', 'verb'],
    registers,
  });
  const drift = new Counter({
    name: 'cimlet_drift_repaired_total',
    help: 'Actions that put right what had moved away on the host.',
    labelNames: ['kind'],
    registers,
  });
  const queue = new ActionQueue();
  new Gauge({
    name: 'cimlet_actions',
    help: 'Actions of the round that goes on, running and waiting.',
    labelNames: ['state'],
    registers,
    collect() {
      this.set({ state: 'running' }, queue.running.size);
      this.set({ state: 'waiting' }, queue.waiting.size);
    },
  });
  const pulls = new Counter({
    name: 'cimlet_pulls_total',
    help: 'Actions that downloaded from a registry, by how they ended: done, failed.',
    labelNames: ['result'],
    registers,
  });
  const pulling = new Set<string>();
  const mounts = new Gauge({
    name: 'cimlet_mounts',
    help: 'Mounts of cimlet by what the host showed at the last look at everything: mounted, covered, missing.',
    labelNames: ['state'],
    registers,
  });
  const transferred = new Counter({
    name: 'cimlet_transferred_bytes_total',
    help: 'Bytes of layers, compressed, that were downloaded and unpacked.',
    labelNames: ['phase'],
    registers,
  });
  const bytes = new TransferredBytes();
  const planned = new Gauge({
    name: 'cimlet_plan_actions',
    help: 'Actions of the last plan.',
    registers,
  });
  const blocked = new Gauge({
    name: 'cimlet_plan_blocked',
    help: 'Resources that could not go on by the last plan.',
    registers,
  });
  new Gauge({
    name: 'cimlet_resource_conditions',
    help: 'Resources by kind and condition (kstatus).',
    labelNames: ['kind', 'condition'],
    registers,
    collect() {
      this.reset();
      for (const { kind, conditions } of state.records().resources) {
        const { type = 'Unknown' } = conditions.find(({ status }) => status === 'True') ?? {};
        this.inc({ kind, condition: type });
      }
    },
  });
  new Gauge({
    name: 'cimlet_drifted_resources',
    help: 'Resources that drifted by the last look and are only reported (driftPolicy: Report).',
    labelNames: ['kind'],
    registers,
    collect() {
      this.reset();
      for (const kind of KINDS) this.set({ kind }, 0);
      for (const { kind, conditions } of state.records().resources)
        if (conditions.some(({ reason }) => reason === 'Drifted')) this.inc({ kind });
    },
  });
  new Gauge({
    name: 'cimlet_layer_bytes',
    help: 'Bytes of committed layers.',
    labelNames: ['format'],
    registers,
    collect() {
      this.reset();
      for (const { format, bytes } of state.records().snapshots) this.inc({ format }, bytes);
    },
  });
  new Gauge({
    name: 'cimlet_source_ready',
    help: '1 when the latest revision of a source is in force.',
    labelNames: ['source'],
    registers,
    collect() {
      this.reset();
      for (const { name, revision, trouble } of sources())
        this.set({ source: name }, revision !== undefined && trouble === undefined ? 1 : 0);
    },
  });
  const hooks = new Counter({
    name: 'cimlet_webhooks_total',
    help: 'Webhooks by what became of them: accepted, ignored, unsigned, too-long, unknown-source.',
    labelNames: ['source', 'result'],
    registers,
  });
  const notifications = new Counter({
    name: 'cimlet_notifications_total',
    help: 'Events for receivers of notifications, by what became of them: sent, refused, expired.',
    labelNames: ['receiver', 'result'],
    registers,
  });
  const notificationFailures = new Counter({
    name: 'cimlet_notification_failures_total',
    help: 'Messages that a receiver did not take, each attempt counted.',
    labelNames: ['receiver'],
    registers,
  });
  return {
    onHook: (source, result) => hooks.inc({ source, result }),
    onTold: ({ receiver, result, events }) => {
      if (result === 'failed') notificationFailures.inc({ receiver });
      else notifications.inc({ receiver, result }, events);
    },
    onPlanned: ({ plan, observed, scope }, running) => {
      queue.begin(plan, running);
      if (scope !== undefined) return;
      for (const state of ['mounted', 'covered', 'missing'] as const)
        mounts.set({ state }, observed.mounts.filter((each) => each.state === state).length);
    },
    onEvent: (event) => {
      const { id, kind, verb, drift: isDrift } = event.action;
      queue.note(event);
      if (event.type === 'action.progressed' && event.phase === 'downloading') pulling.add(id);
      const hasEnded = event.type === 'action.failed' || event.type === 'action.succeeded';
      if (hasEnded && pulling.delete(id))
        pulls.inc({ result: event.type === 'action.succeeded' ? 'done' : 'failed' });
      if (event.type === 'action.progressed') {
        const { phase } = event;
        if (phase === 'downloading' || phase === 'unpacking') transferred.inc({ phase }, bytes.since(event));
        return;
      }
      if (event.type === 'action.failed') failures.inc({ kind, verb });
      if (event.type !== 'action.succeeded') return;
      actions.observe({ kind, verb }, event.durationMs / 1000);
      if (isDrift) drift.inc({ kind });
    },
    onRound: ({ durationMs, plan, error }) => {
      queue.end();
      rounds.observe({ result: error === undefined ? 'done' : 'failed' }, durationMs / 1000);
      if (plan === undefined) return;
      planned.set(plan.actions.length);
      blocked.set(plan.blocked.length);
    },
    render: () => registry.metrics(),
    contentType: registry.contentType,
  };
}
