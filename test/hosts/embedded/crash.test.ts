import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, expect, it } from 'vitest';
import { publishCim } from '../../../src/cim/publish.ts';
import { createEmbeddedHost } from '../../../src/hosts/embedded/embedded-host.ts';
import { hexOf, layerRegionGuid } from '../../../src/hosts/identity.ts';
import { type LayerItem, layerItems } from '../../support/host-layers.ts';
import { mountsBelow } from '../../support/mounts.ts';
import { requireOrSkip } from '../../support/requirements.ts';
import { build, context, makeDirectory, makeStack, mountRequest, openBench } from './fixture.ts';

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

async function digestOfLayers(root: string): Promise<string> {
  const hash = createHash('sha256');
  for (const name of (await readdir(join(root, 'cim-layers'))).sort())
    hash.update(name).update(await readFile(join(root, 'cim-layers', name)));
  return hash.digest('hex');
}

describe.runIf(kernel)('a process killed anywhere', () => {
  it('is finished by the next, with the same bytes', async () => {
    const directory = await makeDirectory();
    const big = (seed: string): LayerItem[] => [
      ...layerItems({ [`${seed}.txt`]: seed }),
      { name: `Files/${seed}.bin`, type: 'file', content: randomBytes(6_000_000) },
    ];
    const requests = await makeStack(join(directory, 'blobs'), big('one'), big('two'));
    const reference = createEmbeddedHost({ root: join(directory, 'reference') });
    await build(reference, requests);
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
      await writeFile(work, JSON.stringify({ requests, mounts }));
      finished = await runAndKill(root, work, lines);

      const host = createEmbeddedHost({ root });
      await host.cleanLeftovers(context);
      expect((await host.observe(context)).leftovers, `killed after ${lines} lines`).toEqual([]);
      await build(host, requests);
      for (const mount of mounts) await host.mount(mount, context);
      const state = await host.observe(context);
      expect(state.layers.map(({ faults }) => faults)).toEqual([[], []]);
      expect(state.mounts.map((mount) => mount.state)).toEqual(['mounted', 'mounted']);
      expect(state.leftovers).toEqual([]);
      expect(await digestOfLayers(root)).toBe(expected);
      for (const { path } of mounts) expect(await readFile(join(path, 'two.txt'), 'utf8')).toBe('two');
      for (const { volumeGuid } of mounts) await host.dismount(volumeGuid, context);
      expect(await readdir(place)).toEqual(['root', 'work.json']);
      expect(mountsBelow(place)).toEqual([]);
    }
    expect(finished).toBe(true);
  }, 180_000);
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
