/** Kernel mounts in tests: each test has a directory of its own, and nothing stays mounted or attached. */

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mountErofs, unmount } from '../../src/native/linux/mount.ts';
import { probeMounting } from '../../src/native/linux/probe.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';

const facts = await probeMounting();

export const canMount = requireOrSkip(
  'EROFS mounts',
  facts.erofs !== 'missing' && facts.mountApi === 'available' && facts.initialUserNamespace,
);
export const canMountFiles = canMount && requireOrSkip('file-backed EROFS mounts', facts.fileBacked);
export const canLoop = canMount && requireOrSkip('loop devices', facts.loopDevices);
export const hasErofsTools = requireOrSkip('erofs-utils', hasTool('fsck.erofs') && hasTool('dump.erofs'));

export class Workshop {
  readonly path = realpathSync(mkdtempSync(join(tmpdir(), 'cimlet-erofs-')));
  readonly #mounted: string[] = [];
  #targets = 0;

  at(...names: string[]): string {
    return join(this.path, ...names);
  }

  /** Mounts an image on a new directory and says where. */
  async mount(image: string, devices: readonly string[] = [], { loop = false } = {}): Promise<string> {
    const target = this.at(`mount-${this.#targets++}`);
    mkdirSync(target);
    await mountErofs({ image, devices, target, loop });
    this.#mounted.push(target);
    return target;
  }

  async close(): Promise<void> {
    for (const target of this.#mounted) await unmount(target);
    const left = this.leftovers();
    rmSync(this.path, { recursive: true });
    if (left.length > 0) throw new Error(`left behind: ${left.join('; ')}`);
  }

  /** Mounts and loop devices that refer to this directory. */
  leftovers(): string[] {
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
    const loops = hasTool('losetup') ? execFileSync('losetup', ['-a'], { encoding: 'utf8' }).split('\n') : [];
    return [...mounts, ...loops].filter((line) => line.includes(this.path));
  }
}

/** Checks an image with fsck.erofs and extracts it when told where to. Throws with the tool's output. */
export function fsck(image: string, devices: readonly string[] = [], extractTo?: string): void {
  const extract = extractTo === undefined ? [] : [`--extract=${extractTo}`];
  const args = ['-d3', ...devices.map((path) => `--device=${path}`), ...extract, image];
  const { status, stderr } = spawnSync('fsck.erofs', args, { encoding: 'utf8' });
  // Its exit status is 0 even after a wrong checksum.
  if (status !== 0 || !/No errors found|Extracted filesystem successfully/.test(stderr))
    throw new Error(`fsck.erofs: ${status} ${stderr}`);
}
