/**
 * A base layer with hives and a layer with a registry delta, in each CIM format, in a Windows process. Prints what the
 * upper one's hive is, in hexadecimal, and what was warned of.
 */

import { mkdir, readdir, readFile } from 'node:fs/promises';
import { createHive, createKey, createValue } from '../../../src/hive/model.ts';
import { writeHive } from '../../../src/hive/writer.ts';
import type { LayerFormat, UnpackRequest } from '../../../src/hosts/host.ts';
import { hexOf, mountVolumeGuid } from '../../../src/hosts/identity.ts';
import { createWindowsHost } from '../../../src/hosts/windows/windows-host.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';
import { build, context, look, stack } from '../../conformance/host.ts';
import { type LayerItem, writeLayerBlob } from '../../support/host-layers.ts';

export interface HiveOutcome {
  merged: string;
  warnings: string[];
  reason: string | undefined;
  leftovers: number;
  /** What of the hives, and of what a base layer gets, is in the layer's tar. */
  exported: string[];
}

/** A hive with one key. */
export function hiveOf(name: string): Buffer {
  const key = createKey(name, { values: [createValue('v', 3, Buffer.from(name))] });
  return writeHive(createHive(createKey('ROOT', { subkeys: [key] })));
}

const ROOT = 'C:\\hives';
const CONFIG = 'Files/Windows/System32/config';
const BASE: LayerItem[] = ['SYSTEM', 'SOFTWARE', 'SAM', 'SECURITY', 'DEFAULT'].map((name) => ({
  name: `${CONFIG}/${name}`,
  type: 'file',
  content: hiveOf('below'),
}));
const UPPER: LayerItem[] = [{ name: 'Hives/SYSTEM_DELTA', type: 'file', content: hiveOf('above') }];

if (process.argv[1]?.endsWith('hives.ts')) {
  await mkdir('C:\\hive-blobs');
  const host = createWindowsHost({ root: ROOT });
  const { cimfs } = openWindowsApi();
  const outcomes: Record<string, HiveOutcome> = {};
  for (const format of ['ForkedCIM', 'BlockCIM'] as const) {
    const warnings: string[] = [];
    const makeLayer = (items: unknown) => writeLayerBlob('C:\\hive-blobs', items as LayerItem[]);
    const requests = await stack({ makeLayer, format } as never, BASE as never, UPPER as never);
    const [base, upper] = requests as [UnpackRequest, UnpackRequest];
    await build(host, [base]);
    await host.unpackLayer(upper, { ...context, warn: (message) => warnings.push(message) });
    await host.commitLayer(upper, context);
    const guid = mountVolumeGuid('hives');
    await cimfs.mountImage(await imageOf(format, upper), format === 'BlockCIM' ? 0x20 : 0, guid);
    const merged = await readFile(`\\\\?\\Volume{${guid}}\\Hives\\SYSTEM_BASE`);
    await cimfs.dismountImage(guid);
    const { reason } = (await host.capabilities())[`${format}.write`];
    const tar = 'C:\\hive-blobs\\exported.tar';
    await host.exportLayer(upper, tar, context);
    const bytes = await readFile(tar);
    const exported = ['SYSTEM_DELTA', 'SYSTEM_BASE', 'layout'].filter((name) => bytes.includes(name));
    const { leftovers } = await look(host);
    outcomes[format] = {
      merged: merged.toString('hex'),
      warnings,
      reason,
      leftovers: leftovers.length,
      exported,
    };
  }
  console.log(JSON.stringify(outcomes));
}

async function imageOf(format: LayerFormat, { chainId }: UnpackRequest) {
  const hex = hexOf(chainId);
  if (format === 'BlockCIM')
    return { container: `${ROOT}\\snapshots\\${hex}.block\\layer.bcim`, name: 'layer.cim' };
  const directory = `${ROOT}\\cim-layers`;
  const name = (await readdir(directory)).find((file) => file.startsWith(hex) && file.endsWith('.cim'));
  return { container: directory, name: name ?? 'none' };
}
