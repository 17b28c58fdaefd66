import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { cp, mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, expect, it } from 'vitest';
import { publishCim } from '../../../src/cim/publish.ts';
import { createEmbeddedHost } from '../../../src/hosts/embedded/embedded-host.ts';
import type { UnpackRequest } from '../../../src/hosts/host.ts';
import { hexOf, layerRegionGuid } from '../../../src/hosts/identity.ts';
import { type LayerItem, layerItems } from '../../support/host-layers.ts';
import { mountsBelow } from '../../support/mounts.ts';
import { requireOrSkip } from '../../support/requirements.ts';
import {
  asBlocks,
  build,
  context,
  makeDirectory,
  makeStack,
  mergeOf,
  mountRequest,
  openBench,
} from './fixture.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const kernel = requireOrSkip('kernel EROFS mounts', capabilities['view.Kernel'].available);
const CHILD = join(import.meta.dirname, 'crash-child.ts');

/** Runs the child and kills it when it has said `lines` lines. Says whether it was done before. */
async function runAndKill(root: string, work: string, lines: number): Promise<boolean> {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', CHILD, root, work], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  let said = 0;
  let done = false;
  for await (const line of createInterface({ input: child.stdout })) {
    done ||= line === 'done';
    if (++said === lines) child.kill('SIGKILL');
  }
  await ended;
  return done;
}

/** Of all that layers and merged CIMs consist of, and not when it was verified. */
async function digestOfLayers(root: string): Promise<string> {
  const hash = createHash('sha256');
  for (const folder of ['cim-layers', 'snapshots']) {
    if (!existsSync(join(root, folder))) continue;
    const entries = await readdir(join(root, folder), { recursive: true, withFileTypes: true });
    const files = entries
      .filter((entry) => entry.isFile() && entry.name !== 'check.json')
      .map((entry) => join(entry.parentPath, entry.name));
    for (const file of files.sort()) hash.update(relative(root, file)).update(await readFile(file));
  }
  return hash.digest('hex');
}

const FORMATS: [string, (requests: readonly UnpackRequest[]) => [UnpackRequest, ...UnpackRequest[]]][] = [
  ['forked layers', (requests) => [...requests] as [UnpackRequest, ...UnpackRequest[]]],
  ['block layers, merged and sealed', (requests) => asBlocks(requests, { seal: true, vhdFooter: true })],
];

describe.runIf(kernel)('a process killed anywhere', () => {
  it.each(FORMATS)(
    'is finished by the next, with the same bytes (%s)',
    async (_name, asWanted) => {
      const directory = await makeDirectory();
      const big = (seed: string): LayerItem[] => [
        ...layerItems({ [`${seed}.txt`]: seed }),
        { name: `Files/${seed}.bin`, type: 'file', content: randomBytes(6_000_000) },
      ];
      const requests = asWanted(await makeStack(join(directory, 'blobs'), big('one'), big('two')));
      const merges = requests[0].format === 'BlockCIM' ? [mergeOf(requests)] : [];
      const reference = createEmbeddedHost({ root: join(directory, 'reference') });
      await build(reference, requests);
      for (const merge of merges) await reference.mergeChain(merge, context);
      const expected = await digestOfLayers(join(directory, 'reference'));

      let finished = false;
      for (let lines = 1; !finished && lines < 60; lines++) {
        const place = join(directory, `kill-${lines}`);
        const root = join(place, 'root');
        await mkdir(place);
        const mounts = [
          mountRequest(join(place, 'deep/kernel'), requests),
          mountRequest(join(place, 'deep/extracted'), requests, 'Extracted'),
        ];
        const work = join(place, 'work.json');
        await writeFile(work, JSON.stringify({ requests, merges, mounts }));
        finished = await runAndKill(root, work, lines);

        const host = createEmbeddedHost({ root });
        await host.cleanLeftovers(context);
        expect((await host.observe(context)).leftovers, `killed after ${lines} lines`).toEqual([]);
        await build(host, requests);
        for (const merge of merges) await host.mergeChain(merge, context);
        for (const mount of mounts) await host.mount(mount, context);
        const state = await host.observe(context);
        expect(state.layers.map(({ faults }) => faults)).toEqual([[], []]);
        expect(state.merges.map(({ faults }) => faults)).toEqual(merges.map(() => []));
        expect(state.mounts.map((mount) => mount.state)).toEqual(['mounted', 'mounted']);
        expect(state.leftovers).toEqual([]);
        expect(await digestOfLayers(root)).toBe(expected);
        for (const { path } of mounts) expect(await readFile(join(path, 'two.txt'), 'utf8')).toBe('two');
        for (const { volumeGuid } of mounts) await host.dismount(volumeGuid, context);
        expect(await readdir(place)).toEqual(['root', 'work.json']);
        expect(mountsBelow(place)).toEqual([]);
      }
      expect(finished).toBe(true);
    },
    180_000,
  );
});

describe('a merge that stopped between its renames', () => {
  it.each(['set aside', 'put in place'])('is finished by repeating it, or cleaned (%s)', async (after) => {
    const { directory, root } = await openBench();
    const [base, ...upper] = await makeStack(
      join(directory, 'blobs'),
      layerItems({ 'a.txt': 'a' }),
      layerItems({ 'b.txt': 'b' }),
    );
    const requests = asBlocks([base, ...upper]);
    const host = createEmbeddedHost({ root });
    await build(host, requests);
    const merged = await host.mergeChain(mergeOf(requests), context);
    const folder = `${hexOf(requests[1]!.chainId)}.merged`;
    const path = (prefix: string) => join(root, 'snapshots', prefix + folder);
    if (after === 'set aside') {
      await cp(path(''), path('tmp-'), { recursive: true });
      await rename(path(''), path('rm-'));
    } else await cp(path(''), path('rm-'), { recursive: true });
    const next = createEmbeddedHost({ root });
    const { merges, leftovers } = await next.observe(context);
    expect([merges.length, leftovers.length]).toEqual(after === 'set aside' ? [0, 2] : [1, 1]);
    expect(await next.mergeChain(mergeOf(requests), context)).toEqual(merged);
    await next.cleanLeftovers(context);
    expect(await next.observe(context)).toMatchObject({ merges: [{ faults: [] }], leftovers: [] });
  });
});

describe('a commit that stopped between its renames', () => {
  it('is finished by repeating it, or cleaned', async () => {
    const { directory, root } = await openBench();
    const requests = await makeStack(join(directory, 'blobs'), layerItems({ 'a.txt': 'a' }));
    const [layer] = requests;
    for (const next of ['commit', 'clean'] as const) {
      const host = createEmbeddedHost({ root });
      await host.removeLayer(layer, context);
      await host.unpackLayer(layer, context);
      publishCim(join(root, 'cim-layers'), hexOf(layer.chainId), layerRegionGuid(layer.chainId));
      expect((await host.observe(context)).layers).toEqual([]);
      if (next === 'clean') {
        await host.cleanLeftovers(context);
        expect(await readdir(join(root, 'cim-layers'))).toEqual([]);
        await host.unpackLayer(layer, context);
      }
      await host.commitLayer(layer, context);
      expect(await host.observe(context)).toMatchObject({ layers: [{ faults: [] }], leftovers: [] });
    }
  });
});
