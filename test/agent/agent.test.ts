import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Agent, type AgentOptions } from '../../src/agent/agent.ts';
import { CimletError } from '../../src/errors.ts';
import { mountVolumeGuid } from '../../src/hosts/identity.ts';
import type { EffectName, MemoryHostOptions } from '../../src/hosts/memory/memory-host.ts';
import { createFolderSource } from '../../src/sources/folder-source.ts';
import { openWorld, type World } from '../reconciler/support.ts';

/** An Image and a Mount of it, as one document stream. */
const app = (name: string, more: { mount?: string; annotations?: string } = {}): string => `
apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: {name: ${name}}
spec: {source: {ociLayout: ./${name}}}
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: {name: ${name}, annotations: {${more.annotations ?? ''}}}
spec: {image: ${name}, path: /mnt/${name}, ${more.mount ?? ''}}
`;

interface Running {
  agent: Agent;
  /** Resolves after a round at whose end this holds, at once if it does now. */
  until(holds: () => boolean): Promise<void>;
  stop(): Promise<void>;
  logged: { level: string; message: string }[];
}

let folder: string;
let world: World;
let running: Running | undefined;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cimlet-agent-'));
  open({});
});
afterEach(async () => {
  await running?.stop();
  running = undefined;
  world.close();
  rmSync(folder, { recursive: true, force: true });
});

function open(options: MemoryHostOptions): void {
  world = openWorld(options);
  for (const name of ['a', 'b', 'c', 'd']) world.images.set(name, `x${name}`);
}

/** Saves a file as editors do. */
function save(file: string, text: string, source = 'here'): void {
  mkdirSync(join(folder, source), { recursive: true });
  const whole = join(folder, `${file}.tmp`);
  writeFileSync(whole, text);
  renameSync(whole, join(folder, source, file));
}

interface StartOptions {
  sources?: string[];
  suspended?: string[];
  resyncMs?: number;
  largestPrune?: number;
  pruneHoldMs?: number;
  /** Looked at by none before this resolves; `isRestoredLate`: what was in force last isn't read before either. */
  slow?: { source: string; until: Promise<void>; isRestoredLate?: boolean };
  /** Called before a source is looked at. */
  onSync?: (source: string) => void;
  gc?: AgentOptions['gc'];
}

function start({
  sources = ['here'],
  suspended = [],
  resyncMs = 60_000,
  largestPrune = 0.5,
  pruneHoldMs = 60_000,
  slow,
  onSync,
  gc,
}: StartOptions = {}): Running {
  const stopping = new AbortController();
  const waiters = new Set<() => void>();
  const logged: Running['logged'] = [];
  const check = () => {
    for (const waiter of waiters) waiter();
  };
  const write = (level: string) => (_fields: Record<string, unknown>, message: string) => {
    logged.push({ level, message });
    check();
  };
  const followed = sources.map((name) => {
    const source = createFolderSource(
      { name, folder: { path: name } },
      { cacheDirectory: join(folder, 'cache', name), baseDirectory: folder },
    );
    const { sync, accepted } = source;
    const restoredLate = async () => {
      await slow?.until;
      return accepted();
    };
    const late = async (signal: AbortSignal) => {
      await slow?.until;
      return sync(signal);
    };
    source.sync = (signal) => {
      onSync?.(name);
      return name === slow?.source ? late(signal) : sync(signal);
    };
    if (name === slow?.source) {
      if (slow.isRestoredLate === true) source.accepted = restoredLate;
    }
    return { source, id: name, prune: true, suspended: suspended.includes(name) ? {} : undefined };
  });
  const agent = new Agent({
    engine: world.engine,
    state: world.state,
    sources: followed,
    resyncMs,
    largestPrune,
    pruneHoldMs,
    gc,
    log: { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') },
    onRound: check,
  });
  const ended = agent.run(stopping.signal);
  return {
    agent,
    logged,
    until: (holds) =>
      Promise.race([
        new Promise<void>((resolve) => {
          const waiter = () => {
            if (!holds()) return;
            waiters.delete(waiter);
            resolve();
          };
          waiters.add(waiter);
          waiter();
        }),
        ended,
      ]),
    stop: async () => {
      stopping.abort();
      await ended;
      for (const { source } of followed) await source.close();
    },
  };
}

const isReady = (key: `Mount/${string}`) => world.state.resource(key)?.conditions[0]?.status === 'True';
const mounts = () => world.state.records().mounts.map(({ name, state }) => `${name} ${state}`);
const reasons = (key: string) => world.state.events(key).map(({ reason }) => reason);
const countCalls = (method: EffectName) =>
  world.host.effects().filter((effect) => effect.method === method).length;

describe('the agent', () => {
  it('applies what a folder declares, and what changes in it from then on', async () => {
    save('a.yaml', app('a'));
    running = start();
    await running.until(() => isReady('Mount/a'));
    save('b.yaml', app('b'));
    await running.until(() => isReady('Mount/b'));
    rmSync(join(folder, 'here', 'a.yaml'));
    await running.until(() => world.state.resource('Mount/a') === undefined);
    expect(mounts()).toEqual(['b mounted']);
    expect(world.state.resource('Mount/b')).toMatchObject({ sourceId: 'here' });
  });

  it('repairs drift when it looks again, by itself', async () => {
    save('a.yaml', app('a'));
    running = start({ resyncMs: 20 });
    await running.until(() => isReady('Mount/a'));
    const before = countCalls('mount');
    const [mount] = world.state.records().mounts;
    world.host.dropMount(mount!.volumeGuid);
    await running.until(() => countCalls('mount') > before && isReady('Mount/a'));
    expect(reasons('Mount/a')).toContain('Repaired');
  });

  it('tells of drift that is only reported, once, and that it is over', async () => {
    save('a.yaml', app('a', { mount: 'driftPolicy: Report' }));
    running = start({ resyncMs: 20 });
    await running.until(() => isReady('Mount/a'));
    const volumeGuid = world.state.records().mounts[0]!.volumeGuid;
    world.host.dropMount(volumeGuid);
    let rounds = 0;
    await running.until(() => reasons('Mount/a').includes('Drifted') && ++rounds > 5);
    const [event] = world.state.events('Mount/a');
    expect(event).toMatchObject({ type: 'Warning', reason: 'Drifted', count: 1 });
    expect(world.state.resource('Mount/a')?.conditions).toMatchObject([
      { type: 'Ready', status: 'False', reason: 'Drifted' },
      { type: 'Stalled', status: 'True', reason: 'Drifted' },
    ]);
    expect(mounts()).toEqual(['a mounted']);
    save('a.yaml', app('a'));
    await running.until(() => isReady('Mount/a'));
    expect(reasons('Mount/a')).toContain('Repaired');
  });

  it('leaves mounts in place when it ends, and finds nothing to do when it starts again', async () => {
    save('a.yaml', app('a'));
    running = start();
    await running.until(() => isReady('Mount/a'));
    await running.stop();
    expect(mounts()).toEqual(['a mounted']);
    const calls = world.host.effects().length;
    let rounds = 0;
    running = start({ resyncMs: 10 });
    await running.until(() => ++rounds > 3);
    expect(world.host.effects()).toHaveLength(calls);
  });

  it('keeps what is in force while a revision is not sound, and says where', async () => {
    save('a.yaml', app('a'));
    running = start();
    await running.until(() => isReady('Mount/a'));
    save('b.yaml', app('b').replace('kind: Mount', 'kind: Mnt'));
    await running.until(() => reasons('Source/here').includes('SyncFailed'));
    expect(world.state.events('Source/here')[0]?.message).toMatch(/b\.yaml:\d+:\d+: /);
    save('b.yaml', app('b'));
    await running.until(() => isReady('Mount/b'));
    expect(isReady('Mount/a')).toBe(true);
  });

  it('starts with what was in force when its source is gone', async () => {
    save('a.yaml', app('a'));
    running = start();
    await running.until(() => isReady('Mount/a'));
    await running.stop();
    rmSync(join(folder, 'here'), { recursive: true });
    const mount = world.state.records().mounts[0]!;
    world.host.dropMount(mount.volumeGuid);
    const before = countCalls('mount');
    running = start();
    await running.until(() => countCalls('mount') > before);
    await running.until(() => reasons('Source/here').includes('SyncFailed'));
  });

  it('removes nothing for an emptied folder', async () => {
    save('a.yaml', app('a'));
    running = start();
    await running.until(() => isReady('Mount/a'));
    rmSync(join(folder, 'here', 'a.yaml'));
    await running.until(() => reasons('Source/here').includes('SyncFailed'));
    expect(mounts()).toEqual(['a mounted']);
  });

  it('prunes more than its share only when that is confirmed', async () => {
    for (const name of ['a', 'b', 'c']) save(`${name}.yaml`, app(name));
    running = start();
    await running.until(() => isReady('Mount/a') && isReady('Mount/b') && isReady('Mount/c'));
    const inForce = world.state.resource('Mount/a')!.revision;
    for (const name of ['b', 'c']) rmSync(join(folder, 'here', `${name}.yaml`));
    await running.until(() => reasons('Source/here').includes('PruneRefused'));
    const refusals = world.state.events('Source/here').map(({ message }) => message);
    const refusal = refusals.find((message) => message.includes('67%'));
    expect(refusal ?? refusals.join('\n')).toContain(`cimlet.dev/prune-confirmed: folder@sha256:`);
    const [, revision = ''] = /prune-confirmed: (\S+)/.exec(refusal ?? '') ?? [];
    expect(revision === inForce || revision.startsWith('folder@sha256:')).toBe(true);
    save('a.yaml', app('a', { annotations: `cimlet.dev/prune-confirmed: "${revision}"` }));
    await running.until(() => world.state.resource('Mount/b') === undefined);
    expect(mounts()).toEqual(['a mounted']);
  });

  it('looks at tags again when their interval is over, and replaces what it shows', async () => {
    const text = app('a').replace('ociLayout: ./a}', 'registry: "example.com/a:v1"}, interval: 1s');
    save('a.yaml', text);
    running = start();
    await running.until(() => isReady('Mount/a'));
    const calls = world.host.effects().length;
    const before = world.state.resource('Image/a')?.facts.image?.digest;
    world.images.set('a', 'xb');
    await running.until(() => world.state.resource('Image/a')?.facts.image?.digest !== before);
    await running.until(() => isReady('Mount/a') && world.state.records().snapshots.length === 2);
    // The old one stays until the new layers are there, and its layers until the new one is shown.
    const effects = world.host
      .effects()
      .slice(calls)
      .map(({ method }) => method);
    expect(effects.lastIndexOf('commitLayer')).toBeLessThan(effects.indexOf('dismount'));
    expect(effects.indexOf('mount')).toBeLessThan(effects.indexOf('removeLayer'));
  });

  it('looks at nothing else when the interval of a tag is over', async () => {
    save('a.yaml', app('a').replace('ociLayout: ./a}', 'registry: "example.com/a:v1"}, interval: 1s'));
    save('b.yaml', app('b'));
    running = start();
    await running.until(() => isReady('Mount/a') && isReady('Mount/b'));
    const { agent } = running;
    await running.until(() => agent.isReady);
    const seen: string[][] = [];
    const observe = world.host.observe.bind(world.host);
    world.host.observe = async (options) => {
      const state = await observe(options);
      seen.push(state.mounts.map(({ path }) => path));
      return state;
    };
    await running.until(() => seen.length > 1);
    expect(new Set(seen.flat())).toEqual(new Set(['/mnt/a']));
  });

  it('collects garbage at once when the disk is full', async () => {
    world.close();
    let isFull = true;
    open({
      onCall: ({ method }, stage) => {
        if (method === 'mount' && stage === 'before' && isFull)
          throw new CimletError('no-space', 'mount /mnt/a: no space left');
      },
    });
    save('a.yaml', app('a', { mount: 'retry: {backoff: 10ms}' }));
    const collect = async () => {
      isFull = false;
    };
    running = start({ gc: { intervalMs: 3_600_000, collect } });
    await running.until(() => isReady('Mount/a'));
  });

  it('ends when its state turns out to be damaged, for the next start to set it aside', async () => {
    save('a.yaml', app('a'));
    const nothing = () => undefined;
    const damaged = () => {
      throw new CimletError('corrupt', 'open state database: it is malformed');
    };
    const agent = new Agent({
      engine: { ...world.engine, plan: damaged },
      state: Object.defineProperty(world.state, 'isDamaged', { value: true }),
      sources: [],
      resyncMs: 10,
      largestPrune: 0.5,
      pruneHoldMs: 60_000,
      log: { debug: nothing, info: nothing, warn: nothing, error: nothing },
    });
    await expect(agent.run(new AbortController().signal)).rejects.toMatchObject({ code: 'corrupt' });
  });

  it('collects garbage between rounds, and goes on when that fails', async () => {
    save('a.yaml', app('a'));
    let collections = 0;
    const collect = async () => {
      if (++collections === 1) throw new CimletError('unavailable', 'collect garbage: the disk is busy');
    };
    running = start({ resyncMs: 10, gc: { intervalMs: 0, collect } });
    await running.until(() => collections > 2);
    expect(reasons('Host')).toContain('GarbageCollectionFailed');
    await running.until(() => isReady('Mount/a'));
  });

  it('says that two sources declare the same, and keeps to the first', async () => {
    save('a.yaml', app('a'), 'one');
    save('a.yaml', app('a', { mount: 'timeout: 5m' }), 'two');
    save('b.yaml', app('b'), 'two');
    running = start({ sources: ['one', 'two'] });
    await running.until(() => isReady('Mount/a') && isReady('Mount/b'));
    await running.until(() => reasons('Source/two').includes('Duplicate'));
    await running.until(() => world.state.resource('Mount/a')?.sourceId === 'one');
  });

  it('prunes nothing while a source cannot be read: it may have moved there', async () => {
    save('a.yaml', app('a'), 'one');
    save('b.yaml', app('b'), 'two');
    running = start({ sources: ['one', 'two'] });
    await running.until(() => isReady('Mount/a') && isReady('Mount/b'));
    renameSync(join(folder, 'two'), join(folder, 'away'));
    running.agent.sources.look('two');
    await running.until(() => reasons('Source/two').includes('SyncFailed'));
    save('c.yaml', app('c'), 'one');
    rmSync(join(folder, 'one', 'a.yaml'));
    await running.until(() => isReady('Mount/c') && reasons('Source/one').includes('PruneRefused'));
    save('a.yaml', app('a'), 'away');
    renameSync(join(folder, 'away'), join(folder, 'two'));
    running.agent.sources.look('two');
    await running.until(() => world.state.resource('Mount/a')?.sourceId === 'two' && isReady('Mount/a'));
    expect(countCalls('dismount')).toBe(0);
    rmSync(join(folder, 'two', 'a.yaml'));
    await running.until(() => world.state.resource('Mount/a') === undefined);
  });

  it('prunes nothing that moved to a suspended source, or may have: one that cannot be read', async () => {
    for (const name of ['a', 'b']) save(`${name}.yaml`, app(name), 'one');
    save('c.yaml', app('c'), 'two');
    running = start({ sources: ['one', 'two'] });
    await running.until(() => isReady('Mount/a') && isReady('Mount/b') && isReady('Mount/c'));
    await running.stop();
    renameSync(join(folder, 'one/b.yaml'), join(folder, 'two/b.yaml'));

    running = start({ sources: ['one', 'two'], suspended: ['two'] });
    await running.until(() => world.state.resource('Mount/b')?.sourceId === 'two');
    await running.stop();
    renameSync(join(folder, 'two'), join(folder, 'away'));
    running = start({ sources: ['one', 'two'], suspended: ['two'] });
    await running.until(() => reasons('Source/two').includes('SyncFailed'));
    await running.stop();
    expect(countCalls('dismount')).toBe(0);

    renameSync(join(folder, 'away'), join(folder, 'two'));
    running = start({ sources: ['one', 'two'] });
    await running.until(() => world.state.resource('Mount/b')?.sourceId === 'two' && isReady('Mount/b'));
    expect(countCalls('dismount')).toBe(0);
  });

  it('does nothing after a start before it knows what was in force of every source', async () => {
    save('a.yaml', app('a'), 'one');
    save('a.yaml', app('a').replaceAll('/mnt/a', '/mnt/two'), 'two');
    running = start({ sources: ['one', 'two'] });
    const path = () => world.state.resource('Mount/a')?.facts.mount?.path;
    const isOfOne = () => path() === '/mnt/a' && isReady('Mount/a');
    await running.until(() => isOfOne() && reasons('Source/two').includes('Duplicate'));
    await running.stop();
    const dismounts = countCalls('dismount');
    const { promise: until, resolve: arrive } = Promise.withResolvers<void>();
    const slow = { source: 'one', until, isRestoredLate: true };
    running = start({ sources: ['one', 'two'], resyncMs: 10, slow });
    const revisions = () => running?.logged.filter(({ message }) => message === 'new revision') ?? [];
    await running.until(() => revisions().length > 0);
    save('b.yaml', app('b'), 'two');
    await running.until(() => revisions().length > 1);
    expect(world.state.resource('Mount/b')).toBeUndefined();
    arrive();
    await running.until(() => isReady('Mount/b'));
    expect(world.state.resource('Mount/a')).toMatchObject({ sourceId: 'one' });
    expect(countCalls('dismount')).toBe(dismounts);
  });

  it('has what may be declared by a source that was never read wait for it', async () => {
    const [image = '', mount = ''] = app('a').split('---');
    save('image.yaml', image, 'one');
    save('mount.yaml', mount, 'two');
    const { promise: until, resolve: arrive } = Promise.withResolvers<void>();
    running = start({ sources: ['one', 'two'], slow: { source: 'one', until } });
    const conditions = () => world.state.resource('Mount/a')?.conditions ?? [];
    await running.until(() => conditions().length > 0);
    expect(conditions()[1]).toMatchObject({ type: 'Reconciling', reason: 'DependencyNotReady' });
    expect(conditions()[1]?.message).toContain('not read yet: one');
    arrive();
    await running.until(() => isReady('Mount/a'));
  });

  it('leaves what depends on a suspended source as it is too, and says that it waits', async () => {
    const [image = '', mount = ''] = app('a').split('---');
    save('image.yaml', image, 'one');
    save('mount.yaml', mount, 'two');
    running = start({ sources: ['one', 'two'] });
    await running.until(() => isReady('Mount/a'));
    await running.stop();
    const calls = world.host.effects().length;
    save('image.yaml', image.replace('./a}', './b}'), 'one');
    running = start({ sources: ['one', 'two'], suspended: ['one'] });
    await running.until(() => running?.agent.isReady === true);
    const plan = await running.agent.plan(new AbortController().signal);
    expect(plan.blocked).toMatchObject([
      { key: 'Image/a', code: 'suspended', message: 'its source is suspended' },
      { key: 'Mount/a', code: 'suspended', message: 'it needs Image/a, which is suspended' },
    ]);
    expect(world.host.effects()).toHaveLength(calls);
  });

  it('is not ready for what it leaves out of a revision, and says so', async () => {
    save('a.yaml', app('a'));
    running = start();
    const { agent } = running;
    await running.until(() => isReady('Mount/a'));
    expect(agent.sources.statuses()[0]?.conditions).toMatchObject([
      { type: 'Ready', status: 'True', reason: 'InForce' },
    ]);
    save('b.yaml', app('b').replace('path:', 'pathh:'));
    await running.until(() => reasons('Source/here').includes('PartlyValid'));
    const because = {
      status: 'False',
      reason: 'PartlyValid',
      message: expect.stringContaining('Mount/b') as unknown,
    };
    expect(agent.sources.statuses()[0]).toMatchObject({
      resources: expect.any(Number) as unknown,
      conditions: [
        { type: 'Ready', ...because },
        { type: 'Stalled', ...because, status: 'True' },
      ],
    });
    expect(reasons('Source/here')).not.toContain('SyncFailed');
  });

  it('tries again what failed, without holding up the rest', async () => {
    world.close();
    let failures = 3;
    open({
      onCall: ({ method, subject }, stage) => {
        if (method === 'mount' && stage === 'before' && subject === mountVolumeGuid('a') && failures-- > 0)
          throw new CimletError('busy', 'mount /mnt/a: in use');
      },
    });
    save('a.yaml', app('a', { mount: 'retry: {backoff: 10ms}' }));
    save('b.yaml', app('b'));
    running = start();
    await running.until(() => isReady('Mount/a') && isReady('Mount/b'));
    expect(running.logged.filter(({ message }) => message === 'mount /mnt/a: in use')).toHaveLength(3);
  });

  it('tries again to remove what it could not, without waiting for the next look', async () => {
    world.close();
    let failures = 2;
    open({
      onCall: ({ method }, stage) => {
        if (method === 'dismount' && stage === 'before' && failures-- > 0)
          throw new CimletError('busy', 'dismount /mnt/b: in use');
      },
    });
    save('a.yaml', app('a'));
    save('b.yaml', app('b'));
    running = start();
    await running.until(() => isReady('Mount/a') && isReady('Mount/b'));
    rmSync(join(folder, 'here', 'b.yaml'));
    await running.until(() => world.state.resource('Mount/b') === undefined);
    expect(mounts()).toEqual(['a mounted']);
    expect(world.state.events('Mount/b')).toMatchObject([
      { reason: 'Deleted' },
      { reason: 'Busy', count: 2 },
      {},
    ]);
  });

  it('mounts although it is woken all the time', async () => {
    save('a.yaml', app('a'));
    const observe = world.host.observe.bind(world.host);
    world.host.observe = async (options) => {
      running?.agent.reconcile();
      await new Promise((resolve) => setImmediate(resolve));
      return observe(options);
    };
    running = start();
    await running.until(() => isReady('Mount/a'));
  });

  it('does all that a plan has when making it took longer than the time to the next look', async () => {
    world.close();
    open({ onCall: () => new Promise((resolve) => setTimeout(resolve, 5)) });
    save('a.yaml', app('a'));
    const observe = world.host.observe.bind(world.host);
    let looks = 0;
    world.host.observe = async (options) => {
      if (options.paths?.includes('/mnt/a')) looks++;
      vi.advanceTimersByTime(120_000);
      return observe(options);
    };
    vi.useFakeTimers({ toFake: ['performance'] });
    try {
      running = start({ resyncMs: 60_000 });
      await running.until(() => isReady('Mount/a'));
      expect(looks).toBe(1);
    } finally {
      vi.useRealTimers();
    }
  });

  it('prunes although a source has been away for long, but not for one that was never read', async () => {
    save('a.yaml', app('a'), 'one');
    save('b.yaml', app('b'), 'two');
    running = start({ sources: ['one', 'two'], pruneHoldMs: 0, largestPrune: 1 });
    await running.until(() => isReady('Mount/a') && isReady('Mount/b'));
    renameSync(join(folder, 'two'), join(folder, 'away'));
    running.agent.sources.look('two');
    await running.until(() => reasons('Source/two').includes('SyncFailed'));
    save('c.yaml', app('c'), 'one');
    rmSync(join(folder, 'one', 'a.yaml'));
    await running.until(() => isReady('Mount/c') && world.state.resource('Mount/a') === undefined);
    // What it declared last is in force.
    expect(isReady('Mount/b')).toBe(true);
    expect(reasons('Source/one')).not.toContain('PruneRefused');
    await running.stop();

    running = start({ sources: ['one', 'two', 'three'], pruneHoldMs: 0, largestPrune: 1 });
    await running.until(() => reasons('Source/three').includes('SyncFailed'));
    save('a.yaml', app('a'), 'one');
    rmSync(join(folder, 'one', 'c.yaml'));
    await running.until(() => isReady('Mount/a') && reasons('Source/one').includes('PruneRefused'));
    expect(world.state.resource('Mount/c')).toBeDefined();
  });

  it('prunes nothing that moved to a source whose revision is refused, however long, even when that is away later', async () => {
    save('a.yaml', app('a'), 'one');
    save('b.yaml', app('b'), 'two');
    running = start({ sources: ['one', 'two'], pruneHoldMs: 0, largestPrune: 1 });
    await running.until(() => isReady('Mount/a') && isReady('Mount/b'));
    const troubleOf = (source: string) =>
      running!.agent.sources.statuses().find(({ name }) => name === source)?.trouble?.code;
    const prunedNothing = async (added: string) => {
      running!.agent.reconcile();
      save(`${added}.yaml`, app(added), 'one');
      await running!.until(() => isReady(`Mount/${added}`));
      expect(countCalls('dismount')).toBe(0);
      expect(reasons('Source/one')).toContain('PruneRefused');
    };
    save('b.yaml', `${app('b')}---\n{ no: [yaml`, 'two');
    running.agent.sources.look('two');
    await running.until(() => troubleOf('two') === 'invalid-manifest');
    save('a.yaml', app('a'), 'two');
    rmSync(join(folder, 'one', 'a.yaml'));
    await prunedNothing('c');
    renameSync(join(folder, 'two'), join(folder, 'away'));
    running.agent.sources.look('two');
    await running.until(() => troubleOf('two') === 'not-found');
    await prunedNothing('d');
    save('b.yaml', app('b'), 'away');
    renameSync(join(folder, 'away'), join(folder, 'two'));
    running.agent.sources.look('two');
    await running.until(() => world.state.resource('Mount/a')?.sourceId === 'two' && isReady('Mount/a'));
    expect(countCalls('dismount')).toBe(0);
  });

  it('keeps what was moved from one source to another while it was down', async () => {
    save('a.yaml', app('a'), 'one');
    save('b.yaml', app('b'), 'one');
    save('c.yaml', app('c'), 'two');
    running = start({ sources: ['one', 'two'] });
    await running.until(() => isReady('Mount/a') && isReady('Mount/b') && isReady('Mount/c'));
    await running.stop();
    renameSync(join(folder, 'one/b.yaml'), join(folder, 'two/b.yaml'));
    const before = world.host.effects().length;
    const { promise: until, resolve: arrive } = Promise.withResolvers<void>();
    running = start({ sources: ['one', 'two'], resyncMs: 10, slow: { source: 'two', until } });
    let rounds = 0;
    await running.until(
      () => running!.logged.some(({ message }) => message === 'new revision') && ++rounds > 3,
    );
    arrive();
    await running.until(() => world.state.resource('Mount/b')?.sourceId === 'two');
    expect(world.host.effects()).toHaveLength(before);
    // Not looked at yet isn't unreadable.
    expect(reasons('Source/one')).not.toContain('PruneRefused');
  });

  it('remembers how the last attempts at a resource ended', async () => {
    world.close();
    let failures = 2;
    open({
      onCall: ({ method }, stage) => {
        if (method === 'mount' && stage === 'before' && failures-- > 0)
          throw new CimletError('busy', 'mount /mnt/a: in use');
      },
    });
    save('a.yaml', app('a', { mount: 'retry: {backoff: 10ms}' }));
    running = start();
    await running.until(() => isReady('Mount/a'));
    const revision = world.state.resource('Mount/a')!.revision;
    expect(world.state.resource('Mount/a')?.history).toMatchObject([
      { result: 'Ready', reason: 'Created', revision, count: 1 },
      { result: 'Retrying', reason: 'Busy', message: 'mount /mnt/a: in use', revision, count: 2 },
    ]);
  });

  it('says what cannot go on, once, and that it recovered', async () => {
    save('a.yaml', app('a'));
    running = start({ resyncMs: 20 });
    await running.until(() => isReady('Mount/a'));
    const layers = world.images.get('a')!;
    world.images.delete('a');
    let rounds = 0;
    await running.until(() => reasons('Image/a').includes('NotFound') && ++rounds > 3);
    expect(world.state.events('Image/a')[0]).toMatchObject({ reason: 'NotFound', count: 1 });
    world.images.set('a', layers);
    await running.until(() => reasons('Image/a').includes('Recovered'));
    expect(world.state.resource('Image/a')?.history.map(({ result }) => result)).toEqual([
      'Ready',
      'Stalled',
      'Ready',
    ]);
  });

  it('outlives a full disk: what cannot be recorded is made up for', async () => {
    save('a.yaml', app('a'));
    const transaction = world.state.transaction;
    const recordEvent = world.state.recordEvent;
    const full = () => {
      throw new CimletError('no-space', 'write state database: the disk is full');
    };
    Object.assign(world.state, { transaction: full, recordEvent: full });
    running = start({ resyncMs: 10 });
    await running.until(() => running?.logged.some(({ level }) => level === 'error') === true);
    Object.assign(world.state, { transaction, recordEvent });
    await running.until(() => isReady('Mount/a'));
  });

  it('looks at what a change touches, and at everything when it is asked to', async () => {
    for (const name of ['a', 'b']) save(`${name}.yaml`, app(name));
    running = start();
    await running.until(() => isReady('Mount/a') && isReady('Mount/b'));
    const seen: string[][] = [];
    const observe = world.host.observe.bind(world.host);
    world.host.observe = async (options) => {
      const state = await observe(options);
      seen.push(state.mounts.map(({ path }) => path));
      return state;
    };
    world.host.dropMount(mountVolumeGuid('b'));
    save('a.yaml', app('a').replace('/mnt/a', '/mnt/other'));
    await running.until(() => world.state.resource('Mount/a')?.facts.mount?.path === '/mnt/other');
    expect(seen.flat()).toContain('/mnt/a');
    expect(seen.flat()).not.toContain('/mnt/b');
    expect(world.state.resource('Mount/b')).toMatchObject({
      revision: world.state.resource('Mount/a')!.revision,
      facts: { mount: { path: '/mnt/b' } },
    });
    running.agent.reconcile();
    await running.until(() => reasons('Mount/b').includes('Repaired'));
  });

  it('looks at its sources when everything is to be reconciled, or one of them is', async () => {
    for (const source of ['one', 'two']) save(`${source}.yaml`, app(source === 'one' ? 'a' : 'b'), source);
    const synced: string[] = [];
    running = start({ sources: ['one', 'two'], onSync: (source) => synced.push(source) });
    const { agent } = running;
    await running.until(() => isReady('Mount/a') && isReady('Mount/b'));
    synced.length = 0;
    agent.reconcile();
    await vi.waitFor(() => expect(new Set(synced)).toEqual(new Set(['one', 'two'])));
    synced.length = 0;
    agent.reconcile('Source/one');
    await vi.waitFor(() => expect(synced).toContain('one'));
    expect(synced).not.toContain('two');
    const gone = new AbortController();
    gone.abort();
    await expect(agent.sources.lookNow(undefined, gone.signal)).rejects.toMatchObject({ code: 'cancelled' });
  });

  it('says when a revision comes into force, and that a source recovered', async () => {
    save('a.yaml', app('a'));
    running = start();
    await running.until(() => isReady('Mount/a'));
    expect(reasons('Source/here')).toEqual(['NewRevision']);
    await running.stop();
    running = start();
    await running.until(() => running?.agent.isReady === true);
    expect(world.state.events('Source/here')).toMatchObject([{ reason: 'NewRevision', count: 1 }]);
    renameSync(join(folder, 'here'), join(folder, 'away'));
    running.agent.sources.look();
    await running.until(() => reasons('Source/here').includes('SyncFailed'));
    renameSync(join(folder, 'away'), join(folder, 'here'));
    running.agent.sources.look();
    await running.until(() => reasons('Source/here').includes('Recovered'));
  });

  it('a source that is suspended by a command stays so, over a restart, until it is resumed', async () => {
    save('a.yaml', app('a'));
    running = start();
    await running.until(() => isReady('Mount/a'));
    world.state.suspend({ key: 'Source/here', reason: 'maintenance', by: 'ann' });
    await running.stop();
    running = start();
    save('a.yaml', app('a').replace('/mnt/a', '/mnt/other'));
    await running.until(() => reasons('Source/here').length > 2 && running?.agent.isReady === true);
    expect(running.agent.sources.statuses()[0]?.suspended).toMatchObject({
      reason: 'maintenance',
      by: 'ann',
    });
    const { blocked } = await running.agent.plan(new AbortController().signal);
    expect(blocked[0]?.message).toMatch(/^its source is suspended by ann since .*: maintenance$/);
    world.state.resume('Source/here', 'ann');
    running.agent.reconcile('Source/here');
    await running.until(() => world.state.resource('Mount/a')?.facts.mount?.path === '/mnt/other');
    expect(reasons('Source/here')).toEqual(expect.arrayContaining(['Suspended', 'Resumed']));
  });

  it('says when a manifest suspends, and when it no longer does', async () => {
    save('a.yaml', app('a'));
    running = start();
    await running.until(() => isReady('Mount/a'));
    save('a.yaml', app('a', { mount: 'suspend: {reason: maintenance, by: ann}' }));
    await running.until(() => reasons('Mount/a').includes('Suspended'));
    expect(world.state.events('Mount/a')[0]).toMatchObject({
      message: 'suspended by ann: maintenance',
      count: 1,
    });
    save('a.yaml', app('a'));
    await running.until(() => reasons('Mount/a').includes('Resumed'));
    expect(isReady('Mount/a')).toBe(true);
  });

  it('looks at the one that it is asked to', async () => {
    for (const name of ['a', 'b']) save(`${name}.yaml`, app(name));
    running = start();
    await running.until(() => isReady('Mount/a') && isReady('Mount/b'));
    world.host.dropMount(mountVolumeGuid('b'));
    running.agent.reconcile('Mount/b');
    await running.until(() => reasons('Mount/b').includes('Repaired'));
  });

  it('goes on when the host cannot be observed for a while', async () => {
    save('a.yaml', app('a'));
    const observe = world.host.observe.bind(world.host);
    let failures = 2;
    world.host.observe = async (options) => {
      if (failures-- > 0) throw new CimletError('unavailable', 'observe: the mount table is busy');
      return observe(options);
    };
    running = start({ resyncMs: 10 });
    await running.until(() => isReady('Mount/a'));
    expect(reasons('Host')).toContain('RoundFailed');
  });
});
