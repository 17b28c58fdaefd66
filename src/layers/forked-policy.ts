import type { CimWriter } from './cim-writer.ts';
import { kindOf, type LayerPolicy } from './layer-policy.ts';
import { childOf, type LayerNode } from './layer-tree.ts';

/** Forked CIMs: the image being written begins as the parent's, so lower content is there and is deleted for real. */
export function forkedPolicy(writer: CimWriter): LayerPolicy {
  return {
    linksLast: false,
    lower: (path) => kindOf(writer.stat(path)),
    removeLower: (path) => {
      writer.deletePath(path);
    },
    emptyLower: (path, added) => emptyLower(writer, path, added),
    enterLower: () => undefined,
    removeOwn: (path) => {
      writer.deletePath(path);
    },
    link: (path, target) => {
      const existing = writer.stat(target);
      if (existing === undefined || existing.isDirectory) return false;
      writer.createHardLink(path, target);
      return true;
    },
    settle: () => undefined,
    finish: () => undefined,
  };
}

function emptyLower(writer: CimWriter, path: string, added: LayerNode): void {
  const pending = [{ path, node: added }];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    if (!next.node.hasLower) continue;
    next.node.hasLower = false;
    for (const { name } of writer.entries(next.path)) {
      const own = childOf(next.node, name);
      if (own === undefined) writer.deletePath(`${next.path}/${name}`);
      else if (own.kind === 'directory') pending.push({ path: `${next.path}/${name}`, node: own });
    }
  }
}
