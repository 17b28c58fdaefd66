import { standardUpcase, upcaseName } from '../cim/upcase.ts';

/** A name that this layer has added, or a lower layer's directory that it has added something to. */
export interface LayerNode {
  /** As the tar spells it. */
  name: string;
  /** `link` is a symlink or mount point: nothing can be below it. */
  kind: 'directory' | 'file' | 'link';
  /** Lower layers may have something below this directory that the layer didn't take away. */
  hasLower: boolean;
  /** By folded name; made with the first child. */
  children: Map<string, LayerNode> | undefined;
}

/** The form of a name in which names are compared. */
export function foldName(name: string): string {
  return /^[\x20-\x7e]*$/.test(name) ? name.toUpperCase() : upcaseName(standardUpcase(), name);
}

export function childOf(parent: LayerNode, name: string): LayerNode | undefined {
  return parent.children?.get(foldName(name));
}

/** Records a name below `parent`, replacing what was recorded there. */
export function addChild(
  parent: LayerNode,
  name: string,
  kind: LayerNode['kind'],
  hasLower: boolean,
): LayerNode {
  const node: LayerNode = { name, kind, hasLower, children: undefined };
  parent.children ??= new Map();
  parent.children.set(foldName(name), node);
  return node;
}
