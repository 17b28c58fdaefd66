import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { ChainId, CommittedLayer, DiffId, VolumeGuid } from '../../src/hosts/host.ts';
import { nextConditions } from '../../src/reconciler/conditions.ts';
import type { ResourceIntent } from '../../src/state/records.ts';
import { openState } from '../../src/state/state.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'cimlet-state-test-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const intent: ResourceIntent = {
  kind: 'Mount',
  name: 'app',
  sourceId: 'here',
  spec: { path: '/mnt/app', chain: 'app' },
  specDigest: 'sha256:1',
  dependencies: ['LayerChain/app'],
  revision: 'r1',
  prune: true,
  deletionPolicy: 'Delete',
};
const layer: CommittedLayer = {
  chainId: 'sha256:c' as ChainId,
  diffId: 'sha256:d' as DiffId,
  format: 'ForkedCIM',
  bytes: 5,
  files: 1,
  builder: 'b/1',
};
const view = {
  volumeGuid: 'guid' as VolumeGuid,
  path: '/mnt/app',
  chainId: layer.chainId,
  format: layer.format,
  view: 'Kernel',
  access: 'ReadOnly',
} as const;

/** Names, sizes, modification times and contents of everything below the root. */
function fingerprint(): string {
  const hash = createHash('sha256');
  for (const name of readdirSync(root, { recursive: true, encoding: 'utf8' }).sort()) {
    const stats = statSync(join(root, name));
    hash.update(`${name} ${stats.size} ${stats.mtimeMs} ${stats.ino}\n`);
    if (stats.isFile()) hash.update(readFileSync(join(root, name)));
  }
  hash.update(String(statSync(root).mtimeMs));
  return hash.digest('hex');
}

describe('records', () => {
  it('that are said again are not changed: watchers would be told of nothing', () => {
    vi.useFakeTimers({ toFake: ['Date'], now: 1000 });
    onTestFinished(() => void vi.useRealTimers());
    const state = openState(root, { readOnly: false });
    const conditions = nextConditions(
      [],
      { state: 'stalled', reason: 'NotFound', message: 'no layout' },
      1,
      'then',
    );
    const say = () => {
      state.intendResource(intent);
      state.setConditions('Mount/app', conditions);
      return state.resource('Mount/app');
    };
    const first = say();
    vi.setSystemTime(2000);
    expect(say()).toEqual(first);
    expect(state.intendResource({ ...intent, prune: false }).updatedAt).toBe(new Date(2000).toISOString());
    state.close();
  });

  it('are as the database has them, whatever was written, taken back, or written past them', () => {
    const state = openState(root, { readOnly: false });
    const name = fc.constantFrom('a', 'b', 'c');
    const of = (text: string) => ({ chainId: text as ChainId, format: layer.format });
    const write = fc.oneof(
      fc.record({ does: fc.constant('intend'), name, revision: fc.constantFrom('r1', 'r2') }),
      fc.record({ does: fc.constantFrom('apply', 'forget', 'snapshot', 'forgetSnapshot', 'mount'), name }),
      fc.record({ does: fc.constantFrom('forgetMount', 'event', 'named', 'unchanged', 'read'), name }),
    );
    const carryOut = (step: { does: string; name: string; revision?: string }) => {
      const key = `Mount/${step.name}` as const;
      const { name } = step;
      const volumeGuid = name as VolumeGuid;
      if (step.does === 'intend') state.intendResource({ ...intent, name, revision: step.revision! });
      if (step.does === 'apply') state.recordApplied(key, { chain: { format: layer.format, chainIds: [] } });
      if (step.does === 'forget') state.forgetResource(key);
      if (step.does === 'snapshot') state.recordSnapshot({ ...layer, ...of(name) });
      if (step.does === 'forgetSnapshot') state.forgetSnapshot(of(name));
      if (step.does === 'mount') state.intendMount({ ...view, volumeGuid, name });
      if (step.does === 'forgetMount') state.forgetMount(volumeGuid);
      if (step.does === 'event') state.recordEvent({ key, type: 'Normal', reason: 'Seen', message: 'it' });
      if (step.does === 'named')
        state.names.put({ name, kind: 'view', format: layer.format, chain: [], labels: {}, state: 'ready' });
      if (step.does === 'unchanged') state.recordUnchanged(['Mount/a', 'Mount/b'], `of ${name}`);
      state.records();
      expect(state.resource(key)).toEqual(state.records().resources.find((record) => record.name === name));
    };
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.array(write), fc.boolean())), (transactions) => {
        for (const [steps, isTakenBack] of transactions) {
          for (const step of steps) carryOut(step);
          const inOne = () =>
            state.transaction(() => {
              for (const step of steps) carryOut(step);
              if (isTakenBack) throw new Error('taken back');
            });
          if (isTakenBack) expect(inOne).toThrow('taken back');
          else inOne();
          const fresh = openState(root, { readOnly: true });
          expect(state.records()).toEqual(fresh.records());
          fresh.close();
        }
      }),
      { numRuns: 30 },
    );
    state.close();
  });

  it('keeps intent and fact apart', () => {
    const state = openState(root, { readOnly: false });
    expect(state.intendResource(intent)).toMatchObject({
      generation: 1,
      appliedDigest: undefined,
      facts: {},
    });
    state.recordApplied('Mount/app', { chain: { format: 'ForkedCIM', chainIds: [layer.chainId] } });
    const changed = state.intendResource({ ...intent, specDigest: 'sha256:2', revision: 'r2' });
    expect(changed).toMatchObject({ generation: 2, appliedDigest: 'sha256:1', appliedRevision: 'r1' });
    expect(changed.facts.chain?.chainIds).toEqual([layer.chainId]);
    expect(state.intendResource({ ...intent, specDigest: 'sha256:2' }).generation).toBe(2);
    state.close();
    const again = openState(root, { readOnly: true });
    expect(again.resource('Mount/app')).toMatchObject({ ...intent, specDigest: 'sha256:2', generation: 2 });
    again.close();
  });

  it('follows a snapshot and a mount from intent to removal', () => {
    const state = openState(root, { readOnly: false });
    state.intendSnapshot({ ...layer, neededBy: 'LayerChain/app' });
    state.intendMount({ ...view, name: 'app' });
    expect(state.records()).toMatchObject({
      snapshots: [{ state: 'intended' }],
      mounts: [{ state: 'intended' }],
    });
    state.recordSnapshot(layer);
    state.recordMount(view);
    const records = state.records();
    expect(records.snapshots).toMatchObject([
      { state: 'committed', bytes: 5, builder: 'b/1', neededBy: 'LayerChain/app' },
    ]);
    expect(records.mounts).toMatchObject([{ ...view, state: 'mounted' }]);
    state.intendDismount(view.volumeGuid);
    state.intendSnapshotRemoval(layer);
    expect(state.records()).toMatchObject({
      snapshots: [{ state: 'removing' }],
      mounts: [{ state: 'removing' }],
    });
    state.forgetMount(view.volumeGuid);
    state.forgetSnapshot(layer);
    expect(state.records()).toEqual({ resources: [], snapshots: [], mounts: [], names: [] });
    state.close();
  });

  it('undoes a transaction that fails', () => {
    const state = openState(root, { readOnly: false });
    const before = state.records();
    const fail = () =>
      state.transaction(() => {
        state.intendResource(intent);
        expect(state.records().resources).toHaveLength(1);
        throw new Error('stop');
      });
    expect(fail).toThrow('stop');
    expect(state.records()).toEqual(before);
    expect(state.resource('Image/app')).toBeUndefined();
    state.close();
  });

  it('says what is news to a receiver, each event once, also after a restart', () => {
    const first = openState(root, { readOnly: false });
    const event = (message: string) =>
      ({ key: 'Mount/app', type: 'Warning', reason: 'Busy', message }) as const;
    first.recordEvent(event('before anybody listened'));
    const before = first.toldTo('chat');
    first.recordTold('chat', before);
    let woken = 0;
    const end = first.onEvent(() => woken++);
    for (const message of ['one', 'two', 'one']) first.recordEvent(event(message));
    end();
    first.recordEvent(event('three'));
    expect(woken).toBe(3);
    const [one, two] = first.news(before, 2);
    expect([one?.message, two?.message]).toEqual(['one', 'two']);
    first.recordTold('chat', two!.seq);
    first.close();
    const second = openState(root, { readOnly: false });
    expect(second.news(second.toldTo('chat'), 10).map(({ message }) => message)).toEqual(['three']);
    expect(second.news(second.toldTo('another'), 10)).toEqual([]);
    second.close();
  });

  it('takes an event for news again when it was long ago', () => {
    const state = openState(root, { readOnly: false });
    const event = { key: 'Host', type: 'Warning', reason: 'RoundFailed', message: 'away' } as const;
    try {
      vi.useFakeTimers({ toFake: ['Date'], now: 0 });
      state.recordEvent(event);
      const [first] = state.news(0, 10);
      vi.setSystemTime(59 * 60_000);
      state.recordEvent(event);
      expect(state.news(first!.seq, 10)).toEqual([]);
      vi.setSystemTime(120 * 60_000);
      state.recordEvent(event);
      expect(state.news(first!.seq, 10)).toMatchObject([{ message: 'away', count: 3 }]);
    } finally {
      vi.useRealTimers();
      state.close();
    }
  });

  it('counts repeated events and forgets the oldest', () => {
    const state = openState(root, { readOnly: false });
    const event = { key: 'Mount/app', type: 'Warning', reason: 'Busy', message: 'in use' } as const;
    state.recordEvent(event);
    state.recordEvent(event);
    expect(state.events('Mount/app')).toMatchObject([{ ...event, count: 2 }]);
    state.transaction(() => {
      for (let index = 0; index < 5400; index++)
        state.recordEvent({ ...event, key: 'Mount/b', message: `${index}` });
    });
    expect(state.events().length).toBeLessThanOrEqual(5200);
    expect(state.events('Mount/b')[0]?.message).toBe('5399');
    expect(state.events().length).toBeGreaterThan(5000);
    state.close();
    const nextCommand = openState(root, { readOnly: false });
    nextCommand.recordEvent(event);
    expect(nextCommand.events()).toHaveLength(5000);
    nextCommand.close();
  });
});

describe('reading only', () => {
  it('sees an empty state where there is none, and makes nothing', () => {
    const before = fingerprint();
    const state = openState(root, { readOnly: true });
    expect(state.records()).toEqual({ resources: [], snapshots: [], mounts: [], names: [] });
    state.close();
    const nowhere = openState(join(root, 'missing'), { readOnly: true });
    expect(nowhere.events()).toEqual([]);
    nowhere.close();
    expect(fingerprint()).toBe(before);
  });

  it('leaves no trace after a writer closed', () => {
    const writer = openState(root, { readOnly: false });
    writer.intendResource(intent);
    writer.close();
    expect(existsSync(join(root, 'state.db-wal'))).toBe(false);
    const before = fingerprint();
    const state = openState(root, { readOnly: true });
    expect(state.records().resources).toHaveLength(1);
    expect(() => state.intendResource(intent)).toThrow(/readonly/);
    state.close();
    expect(fingerprint()).toBe(before);
  });

  it('leaves no trace beside a writer, and sees what it committed', () => {
    const writer = openState(root, { readOnly: false });
    writer.intendResource(intent);
    const before = fingerprint();
    const state = openState(root, { readOnly: true });
    expect(state.records().resources).toHaveLength(1);
    state.close();
    expect(fingerprint()).toBe(before);
    writer.recordApplied('Mount/app', {});
    writer.close();
  });

  it('leaves no trace of what a killed writer left in its log', () => {
    const writer = openState(root, { readOnly: false });
    writer.intendResource(intent);
    const killed = mkdtempSync(join(tmpdir(), 'cimlet-state-test-'));
    for (const name of ['state.db', 'state.db-wal']) cpSync(join(root, name), join(killed, name));
    writer.close();
    rmSync(root, { recursive: true });
    root = killed;
    const before = fingerprint();
    const state = openState(root, { readOnly: true });
    expect(state.records().resources).toHaveLength(1);
    state.close();
    expect(fingerprint()).toBe(before);
  });

  it('leaves no copies behind', () => {
    const copies = mkdtempSync(join(tmpdir(), 'cimlet-state-test-'));
    const before = process.env.TMPDIR;
    process.env.TMPDIR = copies;
    try {
      const writer = openState(root, { readOnly: false });
      writer.intendResource(intent);
      const state = openState(root, { readOnly: true });
      expect(readdirSync(copies)).toHaveLength(1);
      state.close();
      expect(readdirSync(copies)).toEqual([]);
      writer.close();
    } finally {
      if (before === undefined) delete process.env.TMPDIR;
      else process.env.TMPDIR = before;
      rmSync(copies, { recursive: true, force: true });
    }
  });
});

describe('bad databases', () => {
  const modes = [{ readOnly: true }, { readOnly: false }];
  it.each(modes)('names a corrupt one and says what to do (%o)', (mode) => {
    writeFileSync(join(root, 'state.db'), 'this is no database. '.repeat(500));
    expect(() => openState(root, mode)).toThrowError(
      expect.objectContaining({
        code: 'corrupt',
        message: expect.stringContaining(join(root, 'state.db')),
        hint: expect.stringContaining('away'),
      }),
    );
  });

  it.each(modes)('names one with a damaged page (%o)', (mode) => {
    const writer = openState(root, { readOnly: false });
    for (let index = 0; index < 200; index++) writer.intendResource({ ...intent, name: `m${index}` });
    writer.close();
    const file = join(root, 'state.db');
    const bytes = readFileSync(file);
    bytes.fill(0xa5, 4096, bytes.length);
    writeFileSync(file, bytes);
    const use = () => {
      const state = openState(root, mode);
      try {
        state.records();
      } finally {
        state.close();
      }
    };
    expect(use).toThrowError(expect.objectContaining({ code: 'corrupt' }));
  });

  it('refuses one written by a newer release', () => {
    const writer = openState(root, { readOnly: false });
    writer.close();
    const file = join(root, 'state.db');
    const bytes = readFileSync(file);
    bytes.writeUInt32BE(99, 60);
    writeFileSync(file, bytes);
    for (const mode of modes) {
      expect(() => openState(root, mode)).toThrowError(
        expect.objectContaining({ code: 'failed-precondition', message: expect.stringContaining('99') }),
      );
    }
  });

  it('says so when the root is not there to write in', () => {
    expect(() => openState(join(root, 'missing'), { readOnly: false })).toThrowError(
      expect.objectContaining({ code: 'access-denied' }),
    );
  });
});

it('says that it is damaged once SQLite found it so', () => {
  const state = openState(root, { readOnly: false });
  for (let index = 0; index < 300; index++)
    state.recordEvent({
      key: `Mount/${index}`,
      type: 'Normal',
      reason: 'Created',
      message: 'x'.repeat(2000),
    });
  expect(state.isDamaged).toBe(false);
  state.close();
  const damaged = openState(root, { readOnly: false });
  try {
    const file = join(root, 'state.db');
    writeFileSync(file, readFileSync(file).fill(0xa5, 64 * 4096));
    expect(() => damaged.events()).toThrow(expect.objectContaining({ code: 'corrupt' }) as Error);
    expect(damaged.isDamaged).toBe(true);
  } finally {
    damaged.close();
  }
});
