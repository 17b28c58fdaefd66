import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { lstat, mkdir, mkdtemp, readdir, readFile, rm, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createEmbeddedHost, type EmbeddedHostOptions } from '../../src/hosts/embedded/embedded-host.ts';
import type { ChainId, LayerFormat } from '../../src/hosts/host.ts';
import { hexOf } from '../../src/hosts/identity.ts';
import { hostConformance } from '../support/host-conformance.ts';
import { layerItems, writeLayerBlob } from '../support/host-layers.ts';
import { unmountBelow } from '../support/mounts.ts';
import { requireOrSkip } from '../support/requirements.ts';
import type { ConformanceCase, HostFixture } from './host.ts';

const variants: [name: string, options: Omit<EmbeddedHostOptions, 'root'>][] = [
  ['the embedded host', {}],
  ['the embedded host over loop devices', { forceLoop: true }],
  ['the embedded host without kernel views', { disableKernelView: true }],
];

for (const [name, options] of variants) {
  const capabilities = await createEmbeddedHost({ ...options, root: '/nowhere' }).capabilities();
  if (options.disableKernelView !== true)
    requireOrSkip('kernel EROFS mounts', capabilities['view.Kernel'].available);
  const run = async (conformanceCase: (fixture: HostFixture) => Promise<void>): Promise<void> => {
    const directory = await mkdtemp(join(tmpdir(), 'cimlet-conformance-'));
    try {
      await mkdir(join(directory, 'workspace'));
      await mkdir(join(directory, 'files'));
      await conformanceCase(embeddedFixture(directory, options));
    } finally {
      unmountBelow(directory);
      await rm(directory, { recursive: true, force: true });
    }
  };
  // Layers are the same in all variants; only showing them differs.
  const isWanted = ({ needs }: ConformanceCase) =>
    Object.keys(options).length === 0 ||
    needs.length === 0 ||
    needs.some((capability) => capability.endsWith('.mount'));
  hostConformance(name, capabilities, run, isWanted);
}

function embeddedFixture(directory: string, options: Omit<EmbeddedHostOptions, 'root'>): HostFixture {
  const root = join(directory, 'root');
  const open = () => createEmbeddedHost({ ...options, root });
  const snapshotFolder = (chainId: ChainId, format: LayerFormat) =>
    join(root, 'snapshots', hexOf(chainId) + (format === 'BlockCIM' ? '.block' : ''));
  return {
    host: open(),
    view: options.disableKernelView ? 'Extracted' : 'Kernel',
    workspace: join(directory, 'workspace'),
    files: join(directory, 'files'),
    reopen: async () => open(),
    makeLayer: (files) => writeLayerBlob(directory, layerItems(files)),
    readFile: async (path) => (existsSync(path) ? readFile(path, 'utf8') : undefined),
    writeFile: (path, content) => writeFile(path, content),
    removeFile: (path) => unlink(path),
    makeFile: (path) => writeFile(path, 'foreign'),
    makeDirectory: async (path) => void (await mkdir(path)),
    fingerprint: () => fingerprint(root),
    unmountByHand: async ({ path, view }) => {
      if (view === 'Extracted') await unlink(path);
      else execFileSync('umount', [path]);
    },
    coverByHand: async ({ path }) => {
      execFileSync('mount', ['-t', 'tmpfs', 'foreign', path]);
      return async () => void execFileSync('umount', [path]);
    },
    damageLayer: async ({ chainId, format }) => {
      if (format === 'BlockCIM') return unlink(join(snapshotFolder(chainId, format), 'layer.bcim'));
      const record = JSON.parse(
        await readFile(join(snapshotFolder(chainId, format), 'layer.json'), 'utf8'),
      ) as {
        cimFiles: { name: string }[];
      };
      const region = record.cimFiles.find((file) => file.name.startsWith('region_'));
      await unlink(join(root, 'cim-layers', region?.name ?? 'no region'));
    },
    loseSnapshot: ({ chainId, format }) => rm(snapshotFolder(chainId, format), { recursive: true }),
    damageMerge: ({ chainId }) => unlink(join(root, 'snapshots', `${hexOf(chainId)}.merged`, 'merged.bcim')),
  };
}

/** Names, sizes, times and contents of everything below a path. Its own time doesn't count: records come and go there. */
async function fingerprint(path: string): Promise<string> {
  const hash = createHash('sha256');
  const visit = async (current: string): Promise<void> => {
    const stats = await lstat(current, { bigint: true });
    const time = current === path ? '' : stats.mtimeNs;
    hash.update(`${current} ${stats.mode} ${stats.size} ${time} ${stats.ino}\n`);
    if (stats.isDirectory())
      // Made by the first export, and left there without its record.
      for (const name of (await readdir(current)).sort())
        if (current !== path || name !== 'exports') await visit(join(current, name));
        else if (stats.isFile()) hash.update(await readFile(current));
  };
  if (existsSync(path)) await visit(path);
  return hash.digest('hex');
}
