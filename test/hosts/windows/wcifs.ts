/**
 * WCIFS layers in a Windows process: a base layer and one over it, with all that a layer can hold. Prints what became of them
 * as JSON; what is on disk then is the test's to look at.
 */

import { mkdir, readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type {
  ChainId,
  Leftover,
  MountRequest,
  ObservedLayer,
  UnpackRequest,
} from '../../../src/hosts/host.ts';
import { mountVolumeGuid } from '../../../src/hosts/identity.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';
import { build, context, look, stack } from '../../conformance/host.ts';
import { type LayerItem, writeLayerBlob } from '../../support/host-layers.ts';

export interface WcifsOutcome {
  chain: ChainId[];
  layers: readonly ObservedLayer[];
  /** What the mount showed: contents by path. */
  shown: Record<string, string>;
  leftovers: Leftover[];
  /** Why layers that would lead Windows astray were not unpacked. */
  refused: string[];
  privileges: string[];
}

export const descriptor = Buffer.from(
  '0100048000000000000000000000000014000000020030000200000000001400ff011f0001010000000000051200000000001400a900120001010000000000010000000000',
  'hex',
);

const file = (name: string, content: string, more: Partial<LayerItem> = {}): LayerItem => ({
  name,
  type: 'file',
  content: Buffer.from(content),
  ...more,
});
const folder = (name: string): LayerItem => ({ name: `${name}/`, type: 'directory' });
const link = (name: string, linkName: string): LayerItem => ({ name, type: 'hard-link', linkName });

const BOOT = 'UtilityVM/Files/EFI/Microsoft/Boot';
const BASE: LayerItem[] = [
  folder('Files'),
  file('Files/kept.txt', 'kept'),
  file('Files/gone.txt', 'gone'),
  folder('Files/dir'),
  file('Files/dir/low.txt', 'low'),
  file('Files/dir/lower.txt', 'lower'),
  folder('Files/emptied'),
  file('Files/emptied/old.txt', 'old'),
  file('Files/odd.txt', 'odd', {
    records: {
      'MSWINDOWS.rawsd': descriptor.toString('base64'),
      'MSWINDOWS.xattr.NOTE': Buffer.from('note').toString('base64'),
    },
  }),
  file('Files/odd.txt:more', 'another stream'),
  link('Files/own-link.txt', 'Files/kept.txt'),
  { name: 'Files/symlink', type: 'symlink', linkName: 'kept.txt' },
  folder('UtilityVM'),
  folder('UtilityVM/Files'),
  folder('UtilityVM/Files/EFI'),
  folder('UtilityVM/Files/EFI/Microsoft'),
  folder(BOOT),
  file(`${BOOT}/BCD`, 'bcd'),
  file('UtilityVM/Files/vm.txt', 'vm'),
];
const UPPER: LayerItem[] = [
  folder('Files'),
  file('Files/.wh.gone.txt', ''),
  file('Files/new.txt', 'new'),
  file('Files/new.txt:aside', 'aside'),
  file('Files/dir/.wh.low.txt', ''),
  folder('Files/emptied'),
  file('Files/emptied/.wh..wh..opq', ''),
  file('Files/emptied/young.txt', 'young'),
  link('Files/new-link.txt', 'Files/new.txt'),
  link('Files/across.txt', 'Files/dir/lower.txt'),
  { name: 'Files/shortcut', type: 'symlink', linkName: 'new.txt' },
  folder('Hives'),
  file('Hives/SYSTEM_DELTA', 'delta'),
  file('UtilityVM/Files/vm2.txt', 'vm2'),
];

const HOSTILE: LayerItem[][] = [
  [
    folder('Files'),
    folder('Files/dir'),
    { name: 'Files/dir.$WciDirs$', type: 'symlink', linkName: 'C:/Windows' },
  ],
  [folder('Files'), link('Files/vm.txt', 'UtilityVM/Files/vm.txt')],
];

if (process.argv[1]?.endsWith('wcifs.ts')) {
  await mkdir('C:\\wcifs-blobs');
  const host = createWindowsHost({ root: 'C:\\wcifs' });
  const makeLayer = (items: unknown) => writeLayerBlob('C:\\wcifs-blobs', items as LayerItem[]);
  const requests = await stack({ makeLayer, format: 'WCIFS' } as never, BASE as never, UPPER as never);
  const chain = requests.map(({ chainId }) => chainId);
  await build(host, requests);
  const volumeGuid = mountVolumeGuid('wcifs');
  const path = 'C:\\shown\\wcifs';
  const request: MountRequest = {
    volumeGuid,
    path,
    chain,
    format: 'WCIFS',
    access: 'ReadOnly',
    view: 'Kernel',
  };
  await host.mount(request, context);
  const shown: Record<string, string> = {};
  for (const name of (await readdir(path, { recursive: true })).sort())
    if ((await stat(join(path, name))).isFile()) shown[name] = await readFile(join(path, name), 'utf8');
  await host.dismount(volumeGuid, context);
  for (const [index, layer] of requests.entries())
    await host.exportLayer(layer, `C:\\wcifs-blobs\\exported-${index}.tar`, context);
  const refused: string[] = [];
  for (const items of HOSTILE) {
    const [hostile] = await stack({ makeLayer, format: 'WCIFS' } as never, items as never);
    const above = { ...(hostile as UnpackRequest), parents: chain };
    await host.unpackLayer(above, context).catch((error: Error) => refused.push(error.message));
  }
  const { layers, leftovers } = await look(host);
  const { advapi32 } = openWindowsApi();
  const privileges = (['SeBackupPrivilege', 'SeRestorePrivilege', 'SeSecurityPrivilege'] as const).map(
    (name) => advapi32.privilegeState(name),
  );
  console.log(
    JSON.stringify({ chain, layers, shown, leftovers, refused, privileges } satisfies WcifsOutcome),
  );
}
