import type { FileInfo } from '../cim/types.ts';
import { type EntryPlace, entryError, quoteName } from '../tar/tar-format.ts';
import type { BlockCimWriter } from './cim-writer.ts';
import { kindOf, type LayerPolicy, type LowerKind } from './layer-policy.ts';
import { addChild, childOf, foldName, type LayerNode } from './layer-tree.ts';
import type { LowerView } from './lower-view.ts';

interface Removal {
  path: string;
  place: EntryPlace;
}

/**
 * Block CIMs: the CIM holds only what its layer adds, and tombstones for what it takes away; a merge puts the layers
 * together. Without `lower` the layer is a base layer.
 *
 * - What a layer adds hides lower content by itself. Tombstones are for the rest: each whiteout of a path that the
 *   layer doesn't add again, and each lower child that it doesn't add again of a directory whose lower content is
 *   gone. So they are known, and written, when everything else is.
 * - A lower directory that the layer adds something to comes along with the metadata it has below: a merge takes a
 *   directory's metadata from the topmost layer that has it.
 * - A link to a file of this layer is a hard link, one to a lower file a merge link, decided when all files are known.
 */
export function blockPolicy(writer: BlockCimWriter, lower: LowerView | undefined): LayerPolicy {
  return new BlockPolicy(writer, lower, { refusesEmptyWhiteouts: true });
}

/** WCIFS layers: the same, but a whiteout of what isn't there is fine, as it is to hcsshim. */
export function wcifsPolicy(writer: BlockCimWriter, lower: LowerView | undefined): LayerPolicy {
  return new BlockPolicy(writer, lower, { refusesEmptyWhiteouts: false });
}

class BlockPolicy implements LayerPolicy {
  readonly linksLast = true;
  readonly #writer: BlockCimWriter;
  readonly #lower: LowerView | undefined;
  readonly #refusesEmptyWhiteouts: boolean;
  /** By folded path. */
  readonly #removals = new Map<string, Removal>();
  /** By folded path; no path is below another. */
  readonly #tombstones = new Map<string, string>();

  constructor(
    writer: BlockCimWriter,
    lower: LowerView | undefined,
    { refusesEmptyWhiteouts }: { refusesEmptyWhiteouts: boolean },
  ) {
    this.#writer = writer;
    this.#lower = lower;
    this.#refusesEmptyWhiteouts = refusesEmptyWhiteouts;
  }

  lower(path: string): LowerKind {
    return this.#removals.has(foldName(path)) ? 'absent' : kindOf(this.#stat(path));
  }

  removeLower(path: string, place: EntryPlace): void {
    this.#removals.set(foldName(path), { path, place });
  }

  emptyLower(_path: string, added: LayerNode): void {
    const pending = [added];
    for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
      if (!node.hasLower) continue;
      node.hasLower = false;
      for (const child of node.children?.values() ?? []) if (child.kind === 'directory') pending.push(child);
    }
  }

  enterLower(path: string): void {
    const info = this.#stat(path);
    if (info === undefined || this.#lower === undefined) return;
    this.#writer.createFile(path, { ...info, size: 0 }).close();
    for (const { name, size } of this.#lower.streams(path)) {
      const stream = this.#writer.createAlternateStream(path, name, size);
      for (const chunk of this.#lower.read(path, name)) stream.write(chunk);
      stream.close();
    }
  }

  removeOwn(path: string, from: LayerNode['kind'], to: LayerNode['kind'], place: EntryPlace): void {
    // The writer replaces a file by a file; it deletes nothing.
    if (from !== 'directory' && to !== 'directory') return;
    throw entryError(place, `the layer adds ${quoteName(path)} twice, as a ${from} and as a ${to}`);
  }

  link(path: string, target: string, isOwn: boolean): boolean {
    if (isOwn) {
      this.#writer.createHardLink(path, target);
      return true;
    }
    const existing = this.#stat(target);
    if (existing === undefined || existing.isDirectory) return false;
    this.#writer.createMergeLink(path, target);
    return true;
  }

  settle(root: LayerNode): void {
    this.#findHidden(root);
    const removals = [...this.#removals].sort(([a], [b]) => (a < b ? -1 : 1));
    // An ancestor sorts before what is below it.
    for (const [folded, removal] of removals) this.#settleRemoval(root, folded, removal);
    for (const path of this.#inOrder()) this.#enterParents(root, path);
  }

  finish(): void {
    for (const path of this.#inOrder()) this.#writer.tombstone(path);
  }

  /** Lower children, not added again, of the directories whose lower content is gone. */
  #findHidden(root: LayerNode): void {
    const pending = [{ path: '', node: root }];
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      const { path, node } = next;
      // Nothing below can be hidden where there is nothing.
      if (!node.hasLower && !this.#stat(path)?.isDirectory) continue;
      if (!node.hasLower) {
        for (const { name } of this.#lower?.entries(path) ?? []) {
          const child = join(path, name);
          if (childOf(node, name) === undefined) this.#tombstones.set(foldName(child), child);
        }
      }
      for (const child of node.children?.values() ?? []) {
        if (child.kind === 'directory') pending.push({ path: join(path, child.name), node: child });
      }
    }
  }

  #settleRemoval(root: LayerNode, folded: string, { path, place }: Removal): void {
    let node: LayerNode | undefined = root;
    let isHidden = false;
    for (const name of path.split('/')) {
      isHidden = node?.hasLower === false;
      node = node && childOf(node, name);
      if (node === undefined) break;
    }
    if (node !== undefined) return;
    if (this.#stat(path) === undefined) {
      if (!this.#refusesEmptyWhiteouts) return;
      throw entryError(place, `whiteout of ${quoteName(path)}: the layers below have nothing there`);
    }
    if (isHidden || this.#hasTombstoneAbove(folded)) return;
    this.#tombstones.set(folded, path);
  }

  #hasTombstoneAbove(folded: string): boolean {
    for (let slash = folded.indexOf('/'); slash >= 0; slash = folded.indexOf('/', slash + 1)) {
      if (this.#tombstones.has(folded.slice(0, slash))) return true;
    }
    return false;
  }

  #enterParents(root: LayerNode, path: string): void {
    let node = root;
    for (let slash = path.indexOf('/'); slash >= 0; slash = path.indexOf('/', slash + 1)) {
      const parent = path.slice(0, slash);
      const name = parent.slice(parent.lastIndexOf('/') + 1);
      const own = childOf(node, name);
      if (own === undefined) this.enterLower(parent);
      node = own ?? addChild(node, name, 'directory', true);
    }
  }

  #inOrder(): string[] {
    return [...this.#tombstones].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, path]) => path);
  }

  #stat(path: string): FileInfo | undefined {
    return this.#lower?.stat(path);
  }
}

function join(directory: string, name: string): string {
  return directory === '' ? name : `${directory}/${name}`;
}
