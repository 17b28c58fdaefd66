/** `cimlet layer` and `cimlet cim diff`: the real program on a real root, and exporting through any host. */

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { runCli } from '../../src/cli/program.ts';
import { createEmbeddedHost } from '../../src/hosts/embedded/embedded-host.ts';
import type { CommittedLayer, HostState } from '../../src/hosts/host.ts';
import { readLayerTree } from '../../src/hosts/memory/layer-reader.ts';
import { BLOCK_CAPABILITIES, MemoryHost } from '../../src/hosts/memory/memory-host.ts';
import { LayerTarWriter } from '../../src/layers/layer-tar.ts';
import { type RunOptions, runCimlet } from './run-cimlet.ts';

const { export: exporting } = await createEmbeddedHost({ root: '/nowhere' }).capabilities();

let work: string;
let root: string;
beforeAll(() => {
  work = mkdtempSync(join(tmpdir(), 'cimlet-layer-'));
  root = join(work, 'root');
  writeFileSync(join(work, 'base.tar'), tarOf({ 'Files/a.txt': 'a', 'Files/b.txt': 'b' }));
  writeFileSync(join(work, 'upper.tar.gz'), gzipSync(tarOf({ 'Files/a.txt': 'A' }, ['Files/b.txt'])));
  writeFileSync(join(work, 'other.tar'), tarOf({ 'Files/other.txt': 'o' }));
  writeFileSync(join(work, 'broken.tar'), tarOf({ 'Files/a.txt': 'a' }).subarray(0, 700));
});
afterAll(() => rmSync(work, { recursive: true, force: true }));

function tarOf(files: Record<string, string>, gone: string[] = []): Buffer {
  const chunks: Uint8Array[] = [];
  const tar = new LayerTarWriter((bytes) => chunks.push(Uint8Array.from(bytes)));
  tar.directory('Files');
  for (const path of gone) tar.whiteout(path);
  for (const [path, content] of Object.entries(files)) tar.file(path, content);
  tar.finish();
  return Buffer.concat(chunks);
}

const run = (args: string[], options?: RunOptions) =>
  runCimlet(args, { cwd: work, ...options, env: { CIMLET_ROOT: root, ...options?.env } });

async function importLayer(...args: string[]): Promise<CommittedLayer> {
  const { stdout, stderr, code } = await run(['layer', 'import', ...args, '-o', 'json']);
  expect({ code, stderr: stderr.replace(/^warning: .*\n/gm, '') }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(stdout) as CommittedLayer;
}

describe('layer import', () => {
  test('commits a stack, which plans leave alone until a chain uses it, and remove takes away', async () => {
    const base = await importLayer('base.tar', '--format', 'ForkedCIM');
    const upper = await importLayer('upper.tar.gz', '--parent', `snapshot/${base.chainId.slice(7, 19)}`);
    expect(upper).toMatchObject({ format: 'ForkedCIM', parent: base.chainId });
    expect(await importLayer('base.tar', '--format', 'ForkedCIM')).toEqual(base);
    const listed = await run(['get', 'snapshots']);
    expect(listed.stdout.match(/Unrecorded/g)).toHaveLength(2);

    const manifest = join(work, 'app.yaml');
    writeFileSync(
      manifest,
      `apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata: { name: app }
spec: { format: ForkedCIM, layers: [{ archive: base.tar }, { archive: upper.tar.gz }] }
`,
    );
    const applied = await run(['apply', '-f', manifest, '--yes', '-o', 'json']);
    expect(applied.code).toBe(0);
    const { plan } = JSON.parse(applied.stdout);
    expect(plan.actions.map(({ id }: { id: string }) => id)).toEqual(['LayerChain/app']);
    const refused = await run(['layer', 'remove', upper.chainId]);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(
      /^error: remove layer sha256:\w+: it was made\nhint: change the manifests/,
    );
    expect((await run(['delete', 'chain/app', '--yes'])).code).toBe(0);

    const again = await importLayer('base.tar', '--format', 'ForkedCIM');
    writeFileSync(
      manifest,
      `apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata: { name: other }
spec: { format: ForkedCIM, layers: [{ archive: other.tar }] }
`,
    );
    expect((await run(['apply', '-f', manifest, '--yes'])).code).toBe(0);
    expect((await run(['delete', 'chain/other', '--yes'])).code).toBe(0);
    const removed = await run(['layer', 'remove', `snapshot/${again.chainId}`]);
    expect(removed).toMatchObject({ code: 0, stdout: `Removed ForkedCIM layer ${again.chainId}.\n` });
    const observed = JSON.parse((await run(['observe', '-o', 'json'])).stdout) as HostState;
    expect([observed.layers, observed.leftovers]).toEqual([[], []]);
  });

  test('seals a layer, and those on it', async () => {
    const base = await importLayer('base.tar', '--seal');
    expect(base).toMatchObject({ format: 'BlockCIM', rootHash: expect.stringMatching(/^sha256:\w{64}$/) });
    const { stdout } = await run(['layer', 'import', 'base.tar', '--seal']);
    expect(stdout).toContain(`, root hash ${base.rootHash}.\n`);
    const upper = await importLayer('upper.tar.gz', '--parent', base.chainId);
    expect(upper.rootHash).toMatch(/^sha256:/);
    for (const { chainId } of [upper, base]) expect((await run(['layer', 'remove', chainId])).code).toBe(0);
  });

  test('seals nothing that is on layers, or below layers, without a seal', async () => {
    const base = await importLayer('base.tar', '--format', 'BlockCIM');
    const onIt = ['--parent', base.chainId];
    const upper = await importLayer('upper.tar.gz', ...onIt);
    const refused = async (...args: string[]) => (await run(['layer', 'import', ...args, '--seal'])).stderr;
    expect(await refused('other.tar', ...onIt)).toMatch(/the layers below are not sealed\nhint: /);
    expect(await refused('base.tar')).toMatch(/there are layers on it that are not sealed\nhint: /);
    expect(await refused('other.tar', '--format', 'ForkedCIM')).toMatch(
      /neither seal .*\nhint: use BlockCIM/,
    );
    for (const { chainId } of [upper, base]) expect((await run(['layer', 'remove', chainId])).code).toBe(0);
  });

  test.each([
    ['a file that is not there', ['none.tar'], /^error: read archive .*none\.tar: no such file/],
    ['a broken tar', ['broken.tar'], /^error: unpack layer .*broken\.tar: /],
    ['a parent that is not there', ['base.tar', '--parent', 'snapshot/abc'], /^error: no Snapshot named abc/],
    [
      'a format the host lacks',
      ['base.tar', '--format', 'WCIFS'],
      /^error: import layer .*base\.tar: WCIFS.write: .*\nhint: this host writes ForkedCIM and BlockCIM/,
    ],
  ])('refuses %s, and leaves nothing', async (_name, args, message) => {
    const { code, stdout, stderr } = await run(['layer', 'import', ...args]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(message);
    const observed = JSON.parse((await run(['observe', '-o', 'json'])).stdout) as HostState;
    expect([observed.layers, observed.leftovers]).toEqual([[], []]);
  });
});

describe('layer export', () => {
  test.each([
    ['no file', ['layer', 'export', 'chain/app'], /no file named\nhint: name the tar with -o/],
    ['an unknown chain', ['layer', 'export', 'chain/app', '-o', 'x.tar'], /no LayerChain named app/],
    ['an image', ['layer', 'export', 'image/app', '-o', 'x.tar'], /no Image named app/],
    [
      'a format elsewhere',
      ['get', 'all', '-o', 'x.tar'],
      /argument 'x.tar' is invalid. Allowed choices are text/,
    ],
  ])('refuses %s', async (_name, args, message) => {
    const { code, stderr } = await run(args);
    expect(code).toBe(1);
    expect(stderr).toMatch(message);
    expect(readdirSync(work)).not.toContain('x.tar');
  });

  test('writes the topmost layer of a chain through the port', async () => {
    const host = new MemoryHost({ readLayer: readLayerTree, capabilities: BLOCK_CAPABILITIES });
    const memoryRoot = join(work, 'memory');
    mkdirSync(memoryRoot);
    const chain = `{ archive: ${join(work, 'base.tar')} }, { archive: ${join(work, 'upper.tar.gz')} }`;
    const manifest = `apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata: { name: app }
spec: { integrity: Verified, layers: [${chain}] }
`;
    const printed: string[] = [];
    const write = vi.spyOn(process.stdout, 'write').mockImplementation((text, done?: unknown) => {
      printed.push(String(text));
      if (typeof done === 'function') done();
      return true;
    });
    const cli = async (...argv: string[]) => {
      printed.length = 0;
      const code = await runCli({
        argv: ['--root', memoryRoot, ...argv],
        env: { COLUMNS: '400' },
        version: '0',
        services: {
          defaultRoot: memoryRoot,
          platform: { os: 'windows', architecture: 'amd64' },
          hostLabels: {},
          agentAddress: (root: string) => root,
          openHost: async () => host,
          readStandardInput: async () => manifest,
        },
      });
      return { code, stdout: printed.join('') };
    };
    try {
      expect((await cli('apply', '-f', '-', '--yes')).code).toBe(0);
      const file = join(work, 'exported.tar');
      const exported = await cli('layer', 'export', 'chain/app', '-o', file);
      expect(exported).toMatchObject({
        code: 0,
        stdout: expect.stringMatching(/^Wrote .*exported\.tar: BlockCIM/),
      });
      expect(readFileSync(file, 'latin1')).toContain('Files/.wh.b.txt');
      const { rootHash } = (await host.observe({ signal: new AbortController().signal })).merges[0]!;
      expect((await cli('get', 'chains', '-o', 'wide')).stdout).toContain(`ROOT HASH`);
      expect((await cli('get', 'chains', '-o', 'wide')).stdout).toContain(rootHash);
      expect((await cli('get', 'chains')).stdout).not.toContain(rootHash);
      const described = (await cli('describe', 'chain/app')).stdout;
      expect(described).toContain(`Root hash:     ${rootHash}`);
      expect(described).toContain('Merged:        yes');
      expect((await cli('describe', 'snapshots')).stdout.match(/Root hash: +sha256:/g)).toHaveLength(2);
      expect((await cli('observe')).stdout).toMatch(/Merged: {2}1\n {2}BlockCIM sha256:\w+ .*, 2 layers/);
      expect((await cli('get', 'chain', 'app', '-o', 'json')).stdout).toContain(`"rootHash": "${rootHash}"`);
    } finally {
      write.mockRestore();
    }
  });

  test.skipIf(!exporting.available)('gives back what imports to the same layer', async () => {
    const base = await importLayer('base.tar');
    const upper = await importLayer('upper.tar.gz', '--parent', base.chainId);
    const exported = await run(['layer', 'export', upper.chainId, '-o', 'again.tar']);
    expect(exported).toMatchObject({ code: 0, stderr: '' });
    const again = await importLayer('again.tar', '--parent', base.chainId);
    expect(again.files).toBe(upper.files);
    expect((await run(['layer', 'export', again.chainId, '-o', 'third.tar'])).code).toBe(0);
    expect(readFileSync(join(work, 'third.tar')).equals(readFileSync(join(work, 'again.tar')))).toBe(true);
    for (const { chainId } of [...new Map([again, upper].map((each) => [each.chainId, each])).values(), base])
      expect((await run(['layer', 'remove', chainId])).code).toBe(0);
  });
});

describe('cim diff', () => {
  test('lists what differs, with the exit codes of diff', async () => {
    const base = await importLayer('base.tar', '--format', 'ForkedCIM');
    const upper = await importLayer('upper.tar.gz', '--parent', base.chainId);
    const cim = ({ chainId }: CommittedLayer) => join(root, 'cim-layers', `${chainId.slice(7)}.cim`);
    const differ = await run(['cim', 'diff', cim(base), cim(upper)]);
    expect(differ).toEqual({
      code: 1,
      stderr: '',
      stdout: expect.stringMatching(/^~ Files\/a\.txt: .*data\n- Files\/b\.txt\n$/),
    });
    const data = await run(['cim', 'diff', cim(base), cim(upper), '-o', 'json']);
    expect(JSON.parse(data.stdout)).toMatchObject([
      { path: 'Files/a.txt', change: 'changed' },
      { path: 'Files/b.txt', change: 'removed', what: [] },
    ]);
    expect(await run(['cim', 'diff', cim(base), cim(base)])).toEqual({ code: 0, stdout: '', stderr: '' });
    const failed = await run(['cim', 'diff', cim(base), join(work, 'none.cim')]);
    expect(failed).toMatchObject({ code: 2, stderr: expect.stringMatching(/^error: .*none\.cim/) });
    for (const { chainId } of [upper, base]) expect((await run(['layer', 'remove', chainId])).code).toBe(0);
  });

  test('compares a merged chain with a forked one, given what it was merged from', async () => {
    const manifest = join(work, 'both.yaml');
    const chain = (name: string, format: string) => `apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata: { name: ${name} }
spec: { format: ${format}, layers: [{ archive: base.tar }, { archive: upper.tar.gz }] }
`;
    writeFileSync(manifest, `${chain('block', 'BlockCIM')}---\n${chain('forked', 'ForkedCIM')}`);
    expect((await run(['apply', '-f', manifest, '--yes'])).code).toBe(0);
    const { layers } = JSON.parse((await run(['observe', '-o', 'json'])).stdout) as HostState;
    const top = layers.find(({ parent }) => parent !== undefined)!;
    const find = (id: string, name: string) => {
      const files = readdirSync(root, { recursive: true, encoding: 'utf8' });
      return join(root, files.find((file) => file.includes(id.slice(7)) && file.endsWith(name))!);
    };
    const merged = ['cim', 'diff', find(top.chainId, 'merged.bcim'), find(top.chainId, '.cim')];
    const sources = [top.chainId, top.parent!].flatMap((id) => ['--source-a', find(id, 'layer.bcim')]);
    expect(await run([...merged, ...sources])).toEqual({ code: 0, stdout: '', stderr: '' });
    const wrongOrder = [...sources.slice(2), ...sources.slice(0, 2)];
    expect(await run([...merged, ...wrongOrder])).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^error: /),
    });
    expect((await run(['delete', '-f', manifest, '--yes'])).code).toBe(0);
  });
});
