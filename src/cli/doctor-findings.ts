/** What `doctor` looks at: the host's own capabilities, and the root. Changes nothing. */

import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Capabilities, Capability, Host, HostState } from '../hosts/host.ts';
import { formatBytes } from './text.ts';

/** One thing looked at. `needed`: without it nothing can be done at all. */
export interface Finding {
  name: string;
  ok: boolean;
  needed: boolean;
  /** A fact when it is well, the reason when it isn't. */
  message: string;
  hint?: string | undefined;
}

const MEANINGS: Record<Capability, string> = {
  'ForkedCIM.write': 'write Windows layers as forked CIMs',
  'ForkedCIM.mount': 'show forked CIMs',
  'BlockCIM.write': 'write Windows layers as block CIMs',
  'BlockCIM.mount': 'show block CIMs',
  'WCIFS.write': 'write legacy Windows layers',
  'WCIFS.mount': 'show legacy Windows layers',
  'LCOW.write': 'write Linux layers as ext4 disks',
  'LCOW.mount': 'show Linux layers',
  merge: 'merge a chain of block CIMs',
  seal: 'seal layers and verify them by root hash',
  'view.Kernel': 'mount views with the kernel',
  'view.Extracted': 'show views by extraction',
  active: 'writable mounts',
  commit: 'commit writable mounts as layers',
  export: 'export layers as tar',
  utilityVM: 'attach to utility VMs',
};

/** Everything `doctor` reports, most basic first. */
export async function examineHost(host: Host, signal: AbortSignal): Promise<Finding[]> {
  const state = await host.observe({ signal });
  const { kind, platform, osVersion, architecture } = state.host;
  return [
    fact('node', `Node.js ${process.versions.node}`),
    fact('host', `${kind} on ${platform} ${osVersion}, ${architecture}`),
    await examineRoot(host.root, state.freeBytes),
    ...summarise(state.capabilities),
    ...examineNeighbours(state),
    ...Object.entries(state.capabilities).map(([name, { available, reason, hint }]) => {
      const meaning = MEANINGS[name as Capability];
      const message = reason === undefined ? meaning : `${meaning}: ${reason}`;
      return { name, ok: available, needed: false, message, hint };
    }),
  ];
}

function fact(name: string, message: string): Finding {
  return { name, ok: true, needed: false, message };
}

/** What else runs and is mounted here, on hosts that have such. */
function examineNeighbours({ computeSystems, cimVolumes, cimVolumesUnknown }: HostState): Finding[] {
  const findings: Finding[] = [];
  if (computeSystems !== undefined) {
    const { running, unknown } = computeSystems;
    const base = { name: 'compute systems', needed: false };
    if (unknown === undefined) findings.push({ ...base, ok: true, message: `${running.length} running` });
    else
      findings.push({
        ...base,
        ok: false,
        message: `unknown, so that what they may use is left alone: ${unknown}`,
        hint: 'run as an administrator, with the Containers feature enabled',
      });
  }
  if (cimVolumesUnknown !== undefined)
    findings.push({
      name: 'mounted CIMs',
      ok: false,
      needed: false,
      message: `unknown: ${cimVolumesUnknown}`,
    });
  const foreign = cimVolumes?.filter(({ ours }) => ours === undefined).map(({ path }) => path) ?? [];
  if (cimVolumes !== undefined) {
    const others = foreign.length === 0 ? '' : `; not of this root, and left alone: ${foreign.join(', ')}`;
    findings.push(fact('mounted CIMs', `${cimVolumes.length}${others}`));
  }
  return findings;
}

/** One format that can be written and shown, in one way, is what work needs at least. */
function summarise(capabilities: Capabilities): Finding[] {
  const formats = (['ForkedCIM', 'BlockCIM', 'WCIFS', 'LCOW'] as const).filter(
    (format) => capabilities[`${format}.write`].available && capabilities[`${format}.mount`].available,
  );
  const views = (['Kernel', 'Extracted'] as const).filter((view) => capabilities[`view.${view}`].available);
  const list = (names: readonly string[]) => (names.length > 0 ? names.join(', ') : 'none on this host');
  return [
    { name: 'formats', ok: formats.length > 0, needed: true, message: list(formats) },
    { name: 'views', ok: views.length > 0, needed: true, message: list(views) },
  ];
}

async function examineRoot(root: string, freeBytes: number | undefined): Promise<Finding> {
  const existing = await nearestExisting(root);
  const free = freeBytes === undefined ? '' : `, ${formatBytes(freeBytes)} free`;
  const base = { name: 'root', needed: true };
  const problem = await accessProblem(existing);
  if (problem === undefined) {
    const absent = existing === root ? '' : ' (will be made)';
    return { ...base, ok: true, message: `${root}${absent}${free}` };
  }
  return {
    ...base,
    ok: false,
    message: `${root}: ${existing} cannot be written (${problem})`,
    hint: 'run as a user who may write there, or choose another --root',
  };
}

async function nearestExisting(path: string): Promise<string> {
  for (let current = path; ; current = dirname(current)) {
    const problem = await accessProblem(current, constants.F_OK);
    if (problem !== 'ENOENT' || current === dirname(current)) return current;
  }
}

/** The system's code (`EACCES`, `EROFS`, ...) when the path can't be used so, else undefined. */
async function accessProblem(
  path: string,
  mode = constants.R_OK | constants.W_OK,
): Promise<string | undefined> {
  try {
    await access(path, mode);
    return undefined;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    return code;
  }
}
