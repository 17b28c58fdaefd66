/**
 * The contract of containerd's Snapshotter, case by case as its own suite has them (core/snapshots/testsuite), restated for snapshots with names on any
 * host and format. Knows no test runner.
 */

import assert from 'node:assert/strict';
import {
  chmod,
  lchown,
  link,
  lstat,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import type { ChainId, EffectContext } from '../../src/hosts/host.ts';
import type { NamedSnapshot, Snapshotter } from '../../src/snapshots/snapshotter.ts';

export const context: EffectContext = { signal: new AbortController().signal };

export interface SnapshotterFixture {
  snapshotter: Snapshotter;
  /** The same state, as a new process opens it. */
  reopen(): Promise<Snapshotter>;
  /** Closes what the tree is kept in, as the process' end does. */
  close(): void;
  /** Mounts a view, an active or a committed snapshot. Its path. */
  mount(name: string): Promise<string>;
  unmount(name: string): Promise<void>;
  /** Has the host unpack a layer on the one before for each of these: files with what they say, null for what is taken away. The topmost. */
  unpack(layers: readonly Record<string, string | null>[]): Promise<ChainId>;
}

/**
 * What a format must be able to hold on a host for a case. `posix`: what is mounted has modes, links, renamings and EROFS as POSIX has them; `many`: 128 layers
 * don't take long.
 */
export type Holds = 'files' | 'owners' | 'modes' | 'posix' | 'many';

export interface SnapshotterCase {
  name: string;
  needs: readonly Holds[];
  run(fixture: SnapshotterFixture): Promise<void>;
}

async function rejects(promise: Promise<unknown> | (() => unknown), code: string): Promise<void> {
  const attempt = typeof promise === 'function' ? async () => promise() : () => promise;
  await assert.rejects(attempt, (error: Error & { code?: string }) => {
    assert.equal(error.code, code, error.stack);
    return true;
  });
}

/** Does something in a new active snapshot on `parent`, and commits it as `name`. */
async function layer(
  { snapshotter, mount, unmount }: SnapshotterFixture,
  name: string,
  parent: string | undefined,
  change: (root: string) => Promise<unknown>,
): Promise<NamedSnapshot> {
  const active = `${name}-active`;
  await snapshotter.prepare(active, parent, { format: undefined }, context);
  const root = await mount(active);
  try {
    await change(root);
  } finally {
    await unmount(active);
  }
  return snapshotter.commit(name, active, {}, context);
}

async function look<T>(
  { mount, unmount }: SnapshotterFixture,
  name: string,
  at: (root: string) => Promise<T>,
): Promise<T> {
  const root = await mount(name);
  try {
    return await at(root);
  } finally {
    await unmount(name);
  }
}

/** Everything below a path, with what it says. */
async function treeOf(root: string, path = ''): Promise<Record<string, string>> {
  const tree: Record<string, string> = {};
  for (const entry of (await readdir(`${root}/${path}`, { withFileTypes: true })).sort((a, b) =>
    a.name < b.name ? -1 : 1,
  )) {
    const child = path === '' ? entry.name : `${path}/${entry.name}`;
    // Every ext4 file system has one.
    if (child === 'lost+found') continue;
    if (entry.isDirectory()) {
      tree[`${child}/`] = '';
      Object.assign(tree, await treeOf(root, child));
    } else tree[child] = entry.isSymbolicLink() ? 'link' : await readFile(`${root}/${child}`, 'utf8');
  }
  return tree;
}

export const snapshotterCases: readonly SnapshotterCase[] = [
  {
    name: 'basic: prepare, write, commit, prepare on it, view it, mount them',
    needs: ['files'],
    run: async (fixture) => {
      const { snapshotter } = fixture;
      await snapshotter.prepare('preparing', undefined, { labels: { a: 'b' } }, context);
      await rejects(snapshotter.prepare('preparing', undefined, {}, context), 'already-exists');
      const root = await fixture.mount('preparing');
      await writeFile(`${root}/foo`, 'foo');
      await mkdir(`${root}/a/b/c`, { recursive: true });
      await fixture.unmount('preparing');
      assert((await snapshotter.mounts('preparing', context)).length > 0);
      await snapshotter.commit('committed', 'preparing', { labels: { c: 'd' } }, context);
      const committed = snapshotter.stat('committed');
      assert.deepEqual(
        [committed.kind, committed.parent, committed.labels],
        ['committed', undefined, { c: 'd' }],
      );
      await rejects(() => snapshotter.stat('preparing'), 'not-found');
      await rejects(snapshotter.mounts('committed', context), 'failed-precondition');
      await snapshotter.prepare('next', 'committed', {}, context);
      assert.deepEqual(
        ['active', 'committed'],
        [snapshotter.stat('next').kind, snapshotter.stat('next').parent],
      );
      const next = await fixture.mount('next');
      await writeFile(`${next}/bar`, 'bar');
      await rm(`${next}/a/b`, { recursive: true });
      await fixture.unmount('next');
      await snapshotter.commit('nextCommitted', 'next', {}, context);
      await snapshotter.view('look', 'nextCommitted', {}, context);
      assert.equal(snapshotter.stat('look').kind, 'view');
      assert.deepEqual(await look(fixture, 'look', treeOf), { 'a/': '', bar: 'bar', foo: 'foo' });
      await rejects(snapshotter.prepare('look', undefined, {}, context), 'already-exists');
      await rejects(snapshotter.commit('nextCommitted', 'look', {}, context), 'already-exists');
      await rejects(snapshotter.commit('other', 'look', {}, context), 'failed-precondition');
      await rejects(snapshotter.prepare('orphan', 'nobody', {}, context), 'not-found');
      await rejects(snapshotter.prepare('orphan', 'look', {}, context), 'failed-precondition');
    },
  },
  {
    name: 'stat of active, committed and view',
    needs: ['files'],
    run: async (fixture) => {
      const { snapshotter } = fixture;
      await rejects(() => snapshotter.stat('nobody'), 'not-found');
      await snapshotter.prepare('active', undefined, { labels: { team: 'a' } }, context);
      const { kind, parent, labels, createdAt, updatedAt } = snapshotter.stat('active');
      assert.deepEqual([kind, parent, labels], ['active', undefined, { team: 'a' }]);
      assert(Date.parse(createdAt) <= Date.parse(updatedAt));
      await snapshotter.commit('base', 'active', {}, context);
      await snapshotter.view('view', 'base', {}, context);
      assert.deepEqual(
        [snapshotter.stat('base').kind, snapshotter.stat('view').kind, snapshotter.stat('view').parent],
        ['committed', 'view', 'base'],
      );
      assert((await snapshotter.usage('base', context)).files >= 0);
    },
  },
  {
    name: 'transitivity: a parent is committed, and what is committed is no active one any more',
    needs: ['files'],
    run: async (fixture) => {
      const { snapshotter } = fixture;
      await snapshotter.prepare('one', undefined, {}, context);
      await rejects(snapshotter.prepare('two', 'one', {}, context), 'failed-precondition');
      await rejects(snapshotter.view('two', 'one', {}, context), 'failed-precondition');
      await snapshotter.commit('base', 'one', {}, context);
      await rejects(snapshotter.commit('again', 'one', {}, context), 'not-found');
      await rejects(snapshotter.commit('again', 'base', {}, context), 'failed-precondition');
      await snapshotter.prepare('two', 'base', {}, context);
      assert.equal(snapshotter.stat('two').parent, 'base');
    },
  },
  {
    name: 'a view is read-only',
    needs: ['files', 'posix'],
    run: async (fixture) => {
      await layer(fixture, 'base', undefined, (root) => writeFile(`${root}/file`, 'file'));
      await fixture.snapshotter.view('view', 'base', {}, context);
      await look(fixture, 'view', async (root) => {
        await assert.rejects(writeFile(`${root}/new`, ''), /EROFS/);
        assert.equal(await readFile(`${root}/file`, 'utf8'), 'file');
      });
    },
  },
  {
    name: 'update changes labels, by field path or all of them, and nothing else',
    needs: [],
    run: async ({ snapshotter }) => {
      await snapshotter.prepare('one', undefined, { labels: { l1: 'v1', l2: 'v2' } }, context);
      const created = snapshotter.stat('one').createdAt;
      assert.deepEqual(snapshotter.update('one', { l1: 'new', l3: 'v3' }, ['labels.l1']).labels, {
        l1: 'new',
        l2: 'v2',
      });
      assert.deepEqual(snapshotter.update('one', { l2: '' }, ['labels.l2']).labels, { l1: 'new' });
      assert.deepEqual(snapshotter.update('one', { only: 'this' }, ['labels']).labels, { only: 'this' });
      assert.deepEqual(snapshotter.update('one', {}).labels, {});
      await rejects(() => snapshotter.update('one', {}, ['parent']), 'invalid-manifest');
      await rejects(() => snapshotter.update('nobody', {}), 'not-found');
      assert.equal(snapshotter.stat('one').createdAt, created);
    },
  },
  {
    name: 'walk finds all, and those that filters let through',
    needs: [],
    run: async ({ snapshotter }) => {
      await snapshotter.prepare('a', undefined, { labels: { team: 'x', 'b.c': '1' } }, context);
      await snapshotter.commit('base', 'a', { labels: { team: 'x' } }, context);
      await snapshotter.prepare('b', 'base', { labels: { team: 'y' } }, context);
      await snapshotter.view('c', 'base', {}, context);
      const names = (...filters: string[]) => snapshotter.walk(filters).map(({ name }) => name);
      assert.deepEqual(names(), ['b', 'base', 'c']);
      assert.deepEqual(names('name==b'), ['b']);
      assert.deepEqual(names('kind==committed'), ['base']);
      assert.deepEqual(names('parent==base'), ['b', 'c']);
      assert.deepEqual(names('parent==base,kind!=view'), ['b']);
      assert.deepEqual(names('labels.team'), ['b', 'base']);
      assert.deepEqual(names('labels."team"~=^[xz]$'), ['base']);
      assert.deepEqual(names('name==c', 'labels.team==y'), ['b', 'c']);
      assert.deepEqual(names('name==nobody'), []);
      assert.deepEqual(names('name~=/^b/'), ['b', 'base']);
      assert.deepEqual(names('parent==""'), ['base']);
      await rejects(() => names('size==1'), 'invalid-manifest');
      await rejects(() => names('name~=('), 'invalid-manifest');
    },
  },
  {
    name: 'what is found in a walk is what stat says',
    needs: [],
    run: async ({ snapshotter }) => {
      await snapshotter.prepare('a', undefined, {}, context);
      await snapshotter.commit('base', 'a', {}, context);
      await snapshotter.prepare('b', 'base', {}, context);
      for (const found of snapshotter.walk()) assert.deepEqual(snapshotter.stat(found.name), found);
    },
  },
  {
    name: 'is closed twice',
    needs: [],
    run: async ({ snapshotter, close, reopen }) => {
      await snapshotter.prepare('a', undefined, {}, context);
      await snapshotter.commit('base', 'a', {}, context);
      await snapshotter.remove('base', context);
      close();
      close();
      assert.deepEqual((await reopen()).walk(), []);
    },
  },
  {
    name: 'what has children is not removed, from the leaves on it is',
    needs: [],
    run: async ({ snapshotter }) => {
      await snapshotter.prepare('a', undefined, {}, context);
      await snapshotter.commit('base', 'a', {}, context);
      await snapshotter.prepare('b', 'base', {}, context);
      await snapshotter.commit('middle', 'b', {}, context);
      await snapshotter.prepare('c', 'middle', {}, context);
      await rejects(snapshotter.remove('base', context), 'failed-precondition');
      await rejects(snapshotter.remove('middle', context), 'failed-precondition');
      await snapshotter.remove('c', context);
      await snapshotter.remove('middle', context);
      await snapshotter.remove('base', context);
      await rejects(snapshotter.remove('base', context), 'not-found');
      assert.deepEqual(snapshotter.walk(), []);
    },
  },
  {
    name: 'what is mounted is not removed',
    needs: ['files'],
    run: async (fixture) => {
      const { snapshotter } = fixture;
      await snapshotter.prepare('active', undefined, {}, context);
      const root = await fixture.mount('active');
      await writeFile(`${root}/file`, 'kept');
      await rejects(snapshotter.remove('active', context), 'failed-precondition');
      await rejects(snapshotter.commit('name', 'active', {}, context), 'failed-precondition');
      await rejects(() => snapshotter.stat('name'), 'not-found');
      assert.equal(await readFile(`${root}/file`, 'utf8'), 'kept');
      await fixture.unmount('active');
      await snapshotter.remove('active', context);
    },
  },
  {
    name: 'files deleted in a child are gone, and in the parent still there',
    needs: ['files'],
    run: async (fixture) => {
      await layer(fixture, 'base', undefined, async (root) => {
        await writeFile(`${root}/foo`, 'foo');
        await writeFile(`${root}/bar`, 'bar');
      });
      await layer(fixture, 'child', 'base', (root) => rm(`${root}/foo`));
      assert.deepEqual(await look(fixture, 'child', treeOf), { bar: 'bar' });
      assert.deepEqual(await look(fixture, 'base', treeOf), { bar: 'bar', foo: 'foo' });
      await layer(fixture, 'grandchild', 'child', (root) => writeFile(`${root}/foo`, 'again'));
      assert.deepEqual(await look(fixture, 'grandchild', treeOf), { bar: 'bar', foo: 'again' });
    },
  },
  {
    name: 'a file of a lower layer is moved from one directory to another',
    needs: ['files'],
    run: async (fixture) => {
      await layer(fixture, 'base', undefined, async (root) => {
        await mkdir(`${root}/dir1`);
        await mkdir(`${root}/dir2`);
        await writeFile(`${root}/dir1/f1`, 'f1');
      });
      await layer(fixture, 'moved', 'base', (root) => rename(`${root}/dir1/f1`, `${root}/dir2/f2`));
      assert.deepEqual(await look(fixture, 'moved', treeOf), { 'dir1/': '', 'dir2/': '', 'dir2/f2': 'f1' });
    },
  },
  {
    name: 'files of a lower layer are renamed over one another',
    needs: ['files'],
    run: async (fixture) => {
      await layer(fixture, 'base', undefined, async (root) => {
        await writeFile(`${root}/a`, 'a');
        await writeFile(`${root}/b`, 'b');
      });
      await layer(fixture, 'renamed', 'base', (root) => rename(`${root}/a`, `${root}/b`));
      assert.deepEqual(await look(fixture, 'renamed', treeOf), { b: 'a' });
    },
  },
  {
    name: 'a file of a lower layer is renamed in case only',
    // Wine doesn't.
    needs: ['files', 'posix'],
    run: async (fixture) => {
      await layer(fixture, 'base', undefined, (root) => writeFile(`${root}/Case`, 'case'));
      await layer(fixture, 'renamed', 'base', (root) => rename(`${root}/Case`, `${root}/case`));
      assert.deepEqual(await look(fixture, 'renamed', treeOf), { case: 'case' });
    },
  },
  {
    name: 'directories that are removed and made again hide what was in them',
    needs: ['files'],
    run: async (fixture) => {
      await layer(fixture, 'base', undefined, async (root) => {
        await mkdir(`${root}/dir/sub`, { recursive: true });
        await writeFile(`${root}/dir/old`, 'old');
        await writeFile(`${root}/dir/sub/deep`, 'deep');
        await writeFile(`${root}/was-file`, '');
        await mkdir(`${root}/was-dir`);
        await writeFile(`${root}/was-dir/x`, '');
      });
      await layer(fixture, 'again', 'base', async (root) => {
        await rm(`${root}/dir`, { recursive: true });
        await mkdir(`${root}/dir`);
        await writeFile(`${root}/dir/new`, 'new');
        await rm(`${root}/was-file`);
        await mkdir(`${root}/was-file`);
        await rm(`${root}/was-dir`, { recursive: true });
        await writeFile(`${root}/was-dir`, 'file');
      });
      const tree = { 'dir/': '', 'dir/new': 'new', 'was-dir': 'file', 'was-file/': '' };
      assert.deepEqual(await look(fixture, 'again', treeOf), tree);
      await layer(fixture, 'gone', 'again', (root) => rm(`${root}/dir`, { recursive: true }));
      assert.deepEqual(await look(fixture, 'gone', treeOf), { 'was-dir': 'file', 'was-file/': '' });
    },
  },
  {
    name: 'a file is changed in each layer: the topmost counts',
    needs: ['files'],
    run: async (fixture) => {
      let parent: string | undefined;
      for (const text of ['one', 'two', 'three']) {
        await layer(fixture, text, parent, async (root) => {
          await writeFile(`${root}/file`, text);
          await writeFile(`${root}/${text}`, text);
        });
        parent = text;
      }
      const tree = { file: 'three', one: 'one', three: 'three', two: 'two' };
      assert.deepEqual(await look(fixture, 'three', treeOf), tree);
      assert.deepEqual(await look(fixture, 'one', treeOf), { file: 'one', one: 'one' });
    },
  },
  {
    name: 'links stay links',
    needs: ['files', 'posix'],
    run: async (fixture) => {
      await layer(fixture, 'base', undefined, async (root) => {
        await mkdir(`${root}/dir`);
        await writeFile(`${root}/dir/file`, 'file');
      });
      await layer(fixture, 'linked', 'base', async (root) => {
        await link(`${root}/dir/file`, `${root}/hard`);
        await symlink('dir/file', `${root}/soft`);
        await symlink('/dir', `${root}/absolute`);
      });
      await look(fixture, 'linked', async (root) => {
        const [one, other] = [await stat(`${root}/dir/file`), await stat(`${root}/hard`)];
        assert.deepEqual([one.ino, one.nlink], [other.ino, other.nlink]);
        assert.equal(await readFile(`${root}/soft`, 'utf8'), 'file');
        assert.equal((await lstat(`${root}/absolute`)).isSymbolicLink(), true);
      });
    },
  },
  {
    name: 'permissions of directories stay as they are when something below them changes',
    needs: ['files', 'modes'],
    run: async (fixture) => {
      await layer(fixture, 'base', undefined, async (root) => {
        await mkdir(`${root}/dir/sub`, { recursive: true });
        await chmod(`${root}/dir`, 0o700);
        await chmod(`${root}/dir/sub`, 0o1777);
      });
      await layer(fixture, 'child', 'base', (root) => writeFile(`${root}/dir/sub/file`, ''));
      await look(fixture, 'child', async (root) => {
        assert.equal((await stat(`${root}/dir`)).mode & 0o7777, 0o700);
        assert.equal((await stat(`${root}/dir/sub`)).mode & 0o7777, 0o1777);
      });
    },
  },
  {
    name: "the root's permissions",
    needs: ['files', 'posix'],
    run: async (fixture) => {
      await layer(fixture, 'base', undefined, (root) => writeFile(`${root}/file`, ''));
      await fixture.snapshotter.prepare('active', 'base', {}, context);
      for (const name of ['active', 'base'])
        assert.equal(await look(fixture, name, async (root) => (await stat(root)).mode & 0o777), 0o755);
    },
  },
  {
    name: 'owners',
    needs: ['files', 'owners'],
    run: async (fixture) => {
      await layer(fixture, 'base', undefined, (root) => writeFile(`${root}/file`, 'file'));
      await layer(fixture, 'child', 'base', (root) => lchown(`${root}/file`, 1, 2));
      const { uid, gid } = await look(fixture, 'child', (root) => stat(`${root}/file`));
      assert.deepEqual([uid, gid], [1, 2]);
    },
  },
  {
    name: 'what was done is there for the next process, and repairing what is whole changes nothing',
    needs: ['files'],
    run: async (fixture) => {
      await layer(fixture, 'base', undefined, (root) => writeFile(`${root}/file`, 'file'));
      await fixture.snapshotter.prepare('active', 'base', {}, context);
      const before = fixture.snapshotter.walk();
      const next = await fixture.reopen();
      await next.repair(context);
      assert.deepEqual(next.walk(), before);
      assert.deepEqual(await look(fixture, 'active', treeOf), { file: 'file' });
    },
  },
  {
    name: 'several layers are mounted, each of which changed what is below',
    needs: ['files'],
    run: async (fixture) => {
      const many = 4;
      let parent: string | undefined;
      for (let index = 0; index < many; index++) {
        await layer(fixture, `layer-${index}`, parent, async (root) => {
          await writeFile(`${root}/file-${index}`, String(index));
          await writeFile(`${root}/same`, String(index));
          if (index > 0) await rm(`${root}/file-${index - 1}`);
        });
        parent = `layer-${index}`;
      }
      const tree = { [`file-${many - 1}`]: String(many - 1), same: String(many - 1) };
      assert.deepEqual(await look(fixture, `layer-${many - 1}`, treeOf), tree);
    },
  },
  {
    name: '128 layers are mounted, to be read and to be written to',
    needs: ['files', 'many'],
    run: async (fixture) => {
      const below = await fixture.unpack(
        Array.from({ length: 127 }, (_, index) => ({
          [`file-${index}`]: String(index),
          same: String(index),
          [`dir/file-${index}`]: String(index),
          ...(index === 0 ? {} : { [`file-${index - 1}`]: null }),
        })),
      );
      await layer(fixture, 'top', below, async (root) => {
        await rm(`${root}/file-126`);
        await writeFile(`${root}/file-127`, '127');
      });
      const { snapshotter } = fixture;
      assert.equal(snapshotter.stat('top').chain.length, 128);
      await snapshotter.view('view', 'top', {}, context);
      const shown = await look(fixture, 'view', treeOf);
      assert.equal(Object.keys(shown).filter((name) => name.startsWith('dir/file-')).length, 127);
      assert.deepEqual([shown.same, shown['file-127'], shown['file-126']], ['126', '127', undefined]);
      await snapshotter.prepare('active', 'top', {}, context);
      const root = await fixture.mount('active');
      await writeFile(`${root}/dir/file-0`, 'changed');
      assert.deepEqual(await treeOf(root), { ...shown, 'dir/file-0': 'changed' });
      await fixture.unmount('active');
      assert.deepEqual(await look(fixture, 'view', treeOf), shown);
    },
  },
];
