/** What the HCS double says runs on the machine. Runs inside of a Windows process. */

import { mkdir, rm, writeFile } from 'node:fs/promises';

export const SYSTEMS = 'C:\\doubles\\systems';

/** A container of the older schema, whose disks HCS tells. */
export async function runContainer(id: string, disk: string): Promise<void> {
  const basic = {
    Id: id,
    SystemType: 'Container',
    Owner: 'docker',
    State: 'Running',
    RuntimeOsType: 'Windows',
  };
  const disks = { MappedVirtualDiskControllers: { 0: { MappedVirtualDisks: { 1: { HostPath: disk } } } } };
  await mkdir(SYSTEMS, { recursive: true });
  await writeFile(`${SYSTEMS}\\${id}.json`, JSON.stringify(basic));
  await writeFile(`${SYSTEMS}\\${id}.disks.json`, JSON.stringify(disks));
}

export async function stopContainer(id: string): Promise<void> {
  for (const suffix of ['json', 'disks.json']) await rm(`${SYSTEMS}\\${id}.${suffix}`);
}
