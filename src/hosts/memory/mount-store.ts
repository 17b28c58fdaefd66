/** Mounts of the in-memory host, and what else stands at paths. */

import { posix } from 'node:path';
import { CimletError } from '../../errors.ts';
import type { MountedView, MountRequest, ObservedMount, PathState, VolumeGuid } from '../host.ts';
import { isSameView } from '../mounted-view.ts';

interface StoredMount {
  request: MountRequest;
  view: MountedView;
  state: ObservedMount['state'];
  /** Its directory was made for it. */
  created: boolean;
}

export class MountStore {
  readonly #mounts = new Map<VolumeGuid, StoredMount>();
  readonly #places = new Map<string, PathState>();

  /** Puts something foreign at a path; `undefined` takes it away. */
  placeAt(path: string, state: PathState | undefined): void {
    if (state === undefined) this.#places.delete(path);
    else this.#places.set(path, state);
  }

  setState(volumeGuid: VolumeGuid, state: ObservedMount['state']): void {
    const mount = this.#mounts.get(volumeGuid);
    if (mount === undefined) throw new Error(`no mount ${volumeGuid}`);
    mount.state = state;
  }

  all(): ObservedMount[] {
    return [...this.#mounts.values()]
      .map(({ view, state }) => ({ ...view, state }))
      .sort((a, b) => (a.volumeGuid < b.volumeGuid ? -1 : 1));
  }

  viewAt(path: string): MountedView | undefined {
    return [...this.#mounts.values()].find(({ view, state }) => view.path === path && state === 'mounted')
      ?.view;
  }

  /** The path of a mount that is there and whose request suits. */
  findUser(suits: (request: MountRequest) => boolean): string | undefined {
    return [...this.#mounts.values()].find(({ request, state }) => state !== 'missing' && suits(request))
      ?.request.path;
  }

  pathState(path: string): PathState {
    const place = this.#places.get(path);
    for (const { view, state, created } of this.#mounts.values()) {
      if (view.path !== path) continue;
      if (state === 'mounted') return { kind: 'own-mount', detail: `our view of ${view.chainId}` };
      if (state === 'covered') return { kind: 'foreign-mount', detail: 'a foreign mount over ours' };
      if (created && place === undefined) return { kind: 'empty-directory' };
    }
    return place ?? { kind: 'absent' };
  }

  /** Shows `view`, or what is shown already when that is the same. */
  mount(request: MountRequest, view: MountedView, operation: string): MountedView {
    const own = this.#mounts.get(request.volumeGuid);
    if (own?.state === 'mounted') {
      const { expectedRootHash: expected } = request;
      if (isSameView(own.view, view) && (expected === undefined || expected === own.view.rootHash))
        return { ...own.view };
      throw new CimletError(
        'failed-precondition',
        `${operation}: ${request.volumeGuid} already shows ${own.view.chainId} at ${own.view.path}`,
        { hint: 'dismount it first' },
      );
    }
    const there = this.pathState(request.path);
    if (there.kind !== 'absent' && there.kind !== 'empty-directory')
      throw new CimletError(
        'already-exists',
        `${operation}: there is ${there.detail ?? there.kind} already`,
        {
          hint: 'move it away, or mount elsewhere',
        },
      );
    this.#mounts.set(request.volumeGuid, {
      request: { ...request, chain: [...request.chain] },
      view,
      state: 'mounted',
      created: there.kind === 'absent' || own?.created === true,
    });
    return { ...view };
  }

  dismount(volumeGuid: VolumeGuid): void {
    const mount = this.#mounts.get(volumeGuid);
    if (mount?.state === 'covered')
      throw new CimletError('busy', `dismount ${mount.view.path}: something else is mounted over it`, {
        hint: 'unmount that first',
      });
    this.#mounts.delete(volumeGuid);
  }
}

export function checkMountPath(path: string, root: string): void {
  const problem = !posix.isAbsolute(path)
    ? 'the path is not absolute'
    : path === root || path.startsWith(`${root}/`) || root.startsWith(path === '/' ? '/' : `${path}/`)
      ? `the path lies inside or above the root ${root}`
      : undefined;
  if (problem !== undefined) throw new CimletError('invalid-manifest', `mount ${path}: ${problem}`);
}
