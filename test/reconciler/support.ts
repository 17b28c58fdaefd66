import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import type { DiffId, Digest } from '../../src/hosts/host.ts';
import { type EffectName, MemoryHost, type MemoryHostOptions } from '../../src/hosts/memory/memory-host.ts';
import type { Clock } from '../../src/machines/drive-machine.ts';
import type {
  ImageResource,
  LayerChainResource,
  MountResource,
  Resource,
} from '../../src/manifests/resources.ts';
import { createEngine, type Engine, type PlanRequest } from '../../src/reconciler/engine.ts';
import type { FetchLayer } from '../../src/reconciler/perform-context.ts';
import type {
  DeclaredSource,
  ExecutionEvent,
  ExecutionResult,
  Plan,
  ResolvedImage,
} from '../../src/reconciler/types.ts';
import type { Condition } from '../../src/state/records.ts';
import { openState, type State } from '../../src/state/state.ts';

const common = { position: { file: 'app.yaml', line: 1, column: 1 }, baseDirectory: '/' };

export function image(name: string, spec: Partial<ImageResource['spec']> = {}): ImageResource {
  return { kind: 'Image', metadata: { name }, spec: { source: { ociLayout: name }, ...spec }, ...common };
}

export function chain(
  name: string,
  images: string[] = [name],
  spec: Partial<LayerChainResource['spec']> = {},
): LayerChainResource {
  const layers = images.map((of) => ({ image: of }));
  return { kind: 'LayerChain', metadata: { name }, spec: { layers, ...spec }, ...common };
}

export function mount(name: string, spec: Partial<MountResource['spec']> = {}): MountResource {
  const what = spec.image === undefined && spec.chain === undefined ? { chain: name } : {};
  return { kind: 'Mount', metadata: { name }, spec: { path: `/mnt/${name}`, ...what, ...spec }, ...common };
}

export function digest(text: string): string {
  return `sha256:${Buffer.from(text).toString('hex').padStart(64, '0')}`;
}

/** An image whose layers are named by letters: `ab` and `ac` share their base layer. */
export function resolvedImage(layers: string, os = 'windows', file = '/dev/null', size = 100): ResolvedImage {
  return {
    digest: digest(`image ${layers}`) as Digest,
    platform: { os, architecture: 'amd64' },
    layers: [...layers].map((letter) => ({
      diffId: digest(letter) as DiffId,
      blob: {
        file,
        offset: 0,
        size,
        digest: digest(`blob ${letter}`) as Digest,
        mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
      },
    })),
    bytes: size * layers.length,
  };
}

/** A clock that never makes anybody wait. */
export const hastyClock: Clock = {
  setTimeout: (callback) => setTimeout(callback, 0),
  clearTimeout: (handle) => clearTimeout(handle as NodeJS.Timeout),
};

/** Where resources come from; revision `r1` of source `here`, which is pruned, by default. */
export interface Declaration
  extends Partial<Omit<DeclaredSource, 'resources'>>,
    Omit<PlanRequest, 'sources'> {}

export function requestOf(resources: Resource[], from: Declaration = {}): PlanRequest {
  const { id = 'here', revision = 'r1', prune = true, elsewhere, ...rest } = from;
  return { sources: [{ id, revision, prune, resources, elsewhere }], ...rest };
}

export interface World {
  host: MemoryHost;
  state: State;
  engine: Engine;
  events: ExecutionEvent[];
  /** Image name -> its layers' letters; what its source holds now. */
  images: Map<string, string>;
  os: string;
  plan(resources: Resource[], from?: Declaration): Promise<Plan>;
  apply(resources: Resource[], from?: Declaration, signal?: AbortSignal): Promise<ExecutionResult>;
  remove(...keys: `Mount/${string}`[] | string[]): Promise<ExecutionResult>;
  /** The process dies at this call: nothing reaches the host or the records from then on, until `restart`. */
  killAt(method: EffectName, stage: 'before' | 'after', call: number): void;
  isDead: boolean;
  /** A new process on the same host and root. */
  restart(options?: { /** As when its file is gone. */ isStateLost?: boolean }): void;
  close(): void;
}

/** `onResolve` is told each Image that is resolved. */
export function openWorld(
  options: MemoryHostOptions & { fetchLayer?: FetchLayer; onResolve?: (name: string) => void } = {},
): World {
  const root = mkdtempSync(join(tmpdir(), 'cimlet-reconciler-'));
  const blob = join(root, 'blob');
  writeFileSync(blob, Buffer.alloc(100));
  let death: { method: EffectName; stage: 'before' | 'after'; calls: number } | undefined;
  const host = new MemoryHost({
    ...options,
    onCall: (made, stage) => {
      if (
        death !== undefined &&
        made.method === death.method &&
        stage === death.stage &&
        --death.calls === 0
      ) {
        death = undefined;
        world.isDead = true;
        world.state.close();
      }
      if (world.isDead) throw new Error('killed');
      return options.onCall?.(made, stage);
    },
  });
  const open = (world: Pick<World, 'state' | 'images' | 'os'>): Engine =>
    createEngine({
      host,
      state: world.state,
      clock: hastyClock,
      fetchLayer: options.fetchLayer,
      resolveImage: async ({ metadata }) => {
        options.onResolve?.(metadata.name);
        const layers = world.images.get(metadata.name);
        if (layers === undefined)
          throw new CimletError('not-found', `resolve image ${metadata.name}: no such layout`, {
            hint: 'make it',
          });
        return resolvedImage(layers, world.os, blob);
      },
    });
  const state = openState(root, { readOnly: false });
  const signal = new AbortController().signal;
  const base = {
    host,
    state,
    events: [] as ExecutionEvent[],
    images: new Map<string, string>(),
    os: 'windows',
  };
  const world: World = Object.assign(base, {
    engine: undefined as unknown as Engine,
    plan: async (resources: Resource[], from?: Declaration) =>
      (await world.engine.plan(requestOf(resources, from), signal)).plan,
    apply: async (resources: Resource[], from?: Declaration, abort?: AbortSignal) => {
      const planned = await world.engine.plan(requestOf(resources, from), signal);
      const onEvent = (event: ExecutionEvent) => world.events.push(event);
      return world.engine.apply(planned, { signal: abort ?? signal, onEvent });
    },
    remove: async (...keys: string[]) => {
      const planned = await world.engine.planDelete({ keys: keys as 'Mount/x'[], revision: 'r1' }, signal);
      return world.engine.apply(planned, { signal });
    },
    isDead: false,
    killAt: (method: EffectName, stage: 'before' | 'after', call: number) => {
      death = { method, stage, calls: call };
    },
    restart: ({ isStateLost = false } = {}) => {
      if (!world.isDead) world.state.close();
      if (isStateLost)
        for (const end of ['', '-wal', '-shm']) rmSync(join(root, `state.db${end}`), { force: true });
      death = undefined;
      world.isDead = false;
      world.state = openState(root, { readOnly: false });
      world.engine = open(world);
    },
    close: () => {
      if (!world.isDead) world.state.close();
      rmSync(root, { recursive: true, force: true });
    },
  });
  world.engine = open(world);
  return world;
}

export function expectEmpty(plan: Plan): void {
  expect(plan.actions.map(({ id, verb, reasons }) => `${verb} ${id}: ${reasons[0]?.code}`)).toEqual([]);
}

export function expectValidStatus(conditions: readonly Condition[]): void {
  const isTrue = (type: Condition['type']) =>
    conditions.some((entry) => entry.type === type && entry.status === 'True');
  expect(conditions.filter(({ type }) => type === 'Ready')).toHaveLength(1);
  expect(new Set(conditions.map(({ type }) => type)).size).toBe(conditions.length);
  if (isTrue('Ready')) expect(isTrue('Reconciling') || isTrue('Stalled')).toBe(false);
  expect(isTrue('Reconciling') && isTrue('Stalled')).toBe(false);
  expect(isTrue('Ready') || isTrue('Reconciling') || isTrue('Stalled')).toBe(true);
  for (const condition of conditions) {
    expect(condition.reason).toMatch(/^[A-Z][A-Za-z]*$/);
    expect(condition.message).not.toBe('');
  }
}

export function expectValidRecords(state: State): void {
  for (const { conditions, generation } of state.records().resources) {
    expectValidStatus(conditions);
    for (const condition of conditions) expect(condition.observedGeneration).toBeLessThanOrEqual(generation);
  }
}
