/**
 * Snapshots with names, in a tree: what containerd calls a snapshotter (core/snapshots/snapshotter.go), on any host.
 *
 * - A name is unique, whatever it names. A parent is committed: by its name, or a layer by its chain ID.
 * - Active ones are written to, and become committed under another name, which then never change; views are read-only.
 * - What has children isn't removed, nor what is mounted.
 *
 * The state database has the tree, the host what each holds. What is going to be done is recorded first, so that `repair` finishes or undoes
 * what a crash left.
 */

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { CimletError, classify } from '../errors.ts';
import type {
  ChainId,
  CommitOptions,
  DiffId,
  EffectContext,
  Host,
  HostState,
  LayerFormat,
  ScratchOptions,
  SnapshotMount,
  SnapshotUsage,
} from '../hosts/host.ts';
import type { NamedSnapshot, NamedSnapshots } from '../state/named-snapshots.ts';
import type { State } from '../state/state.ts';
import { namingLabels, scratchAskedFor } from './containerd-labels.ts';
import { parseFilter } from './filters.ts';
import { changeLabels } from './labels.ts';
import { chainOfLayer, chainOfNamed, type ParentChain, preferredFormat } from './parents.ts';
import { snapshotKeyOf, UnfinishedSnapshots } from './unfinished.ts';

export type { NamedSnapshot } from '../state/named-snapshots.ts';
export { snapshotKeyOf } from './unfinished.ts';

export interface PrepareOptions {
  labels?: Record<string, string> | undefined;
  /** Of one without a parent. Default: what the host prefers. */
  format?: LayerFormat | undefined;
  scratch?: ScratchOptions | undefined;
}

const LONGEST_NAME = 1024;

export class Snapshotter {
  readonly #host: Host;
  readonly #names: NamedSnapshots;
  readonly #unfinished: UnfinishedSnapshots;

  constructor(host: Host, state: State) {
    this.#host = host;
    this.#names = state.names;
    this.#unfinished = new UnfinishedSnapshots(host, state);
  }

  /** Makes an active snapshot on a parent, or on nothing. Throws `already-exists`, `not-found`, `failed-precondition`. */
  async prepare(
    name: string,
    parent: string | undefined,
    options: PrepareOptions,
    context: EffectContext,
  ): Promise<NamedSnapshot> {
    return this.#make('active', name, parent, options, context);
  }

  /** Makes a read-only snapshot of a parent. */
  async view(
    name: string,
    parent: string,
    { labels }: Pick<PrepareOptions, 'labels'>,
    context: EffectContext,
  ): Promise<NamedSnapshot> {
    return this.#make('view', name, parent, { labels }, context);
  }

  /**
   * Turns the active snapshot `active` into a committed one called `name`; the other name is free again then. Throws `already-exists`,
   * `not-found`, and `failed-precondition` while it is mounted and for what isn't active.
   */
  async commit(
    name: string,
    active: string,
    options: Omit<CommitOptions, 'onChainId'> & { labels?: Record<string, string> | undefined },
    context: EffectContext,
  ): Promise<NamedSnapshot> {
    const operation = `commit snapshot ${JSON.stringify(active)}`;
    this.#requireFree(name, operation);
    const source = this.#require(active, operation);
    if (source.kind !== 'active')
      throw new CimletError('failed-precondition', `${operation}: it is ${source.kind}, not active`);
    const { labels = {}, ...wanted } = options;
    const committing: NamedSnapshot = { ...source, name, kind: 'committed', state: 'committing', labels };
    const intend = (chainId?: ChainId) =>
      this.#names.put({
        ...committing,
        scratch: undefined,
        source: active,
        chain: chainId === undefined ? source.chain : [...source.chain, chainId],
      });
    intend();
    try {
      const layer = await this.#host.commitSnapshot(
        snapshotKeyOf(active),
        { ...wanted, onChainId: intend },
        context,
      );
      this.#unfinished.finishCommit(committing, active, [...source.chain, layer.chainId]);
      return this.#require(name, operation);
    } catch (error) {
      // Unless the failure came after the deed; whoever cancelled it wants its name to be free, too.
      if (await this.#isOnHost(active, { signal: new AbortController().signal })) this.#names.forget(name);
      throw error;
    }
  }

  /** Throws `not-found`, and `failed-precondition` for what has children or is mounted. */
  async remove(name: string, context: EffectContext): Promise<void> {
    const operation = `remove snapshot ${JSON.stringify(name)}`;
    const snapshot = this.#require(name, operation);
    const [child] = this.#names.children(name);
    if (child !== undefined)
      throw new CimletError('failed-precondition', `${operation}: ${JSON.stringify(child)} is made of it`);
    this.#names.put({ ...snapshot, state: 'removing' });
    try {
      await this.#unfinished.finishRemoval(snapshot, context);
    } catch (error) {
      this.#names.put(snapshot);
      throw error;
    }
  }

  /** How others would mount it. Throws `not-found`, and `failed-precondition` for a committed one. */
  async mounts(name: string, context: EffectContext): Promise<SnapshotMount[]> {
    const operation = `mounts of snapshot ${JSON.stringify(name)}`;
    const { kind } = this.#require(name, operation);
    if (kind === 'committed')
      throw new CimletError('failed-precondition', `${operation}: it is committed`, {
        hint: 'make a view of it, or an active snapshot on it',
      });
    return this.#host.snapshotMounts(snapshotKeyOf(name), context);
  }

  /**
   * Writes what a snapshot changed in its parent as an uncompressed layer tar: of a view and of a committed one, what the topmost layer did. Throws
   * `failed-precondition` for any other `parent` than its own; '' is nothing, the parent of one without.
   */
  async diff(
    name: string,
    parent: string | undefined,
    file: string,
    context: EffectContext,
  ): Promise<{ diffId: DiffId; bytes: number }> {
    const operation = `diff of snapshot ${JSON.stringify(name)}`;
    const snapshot = this.#require(name, operation);
    if (parent !== undefined && parent !== (snapshot.parent ?? ''))
      throw new CimletError(
        'failed-precondition',
        `${operation}: its parent is ${snapshot.parent ?? 'nothing'}, not ${parent === '' ? 'nothing' : parent}`,
        { hint: 'a layer is what changed in its own parent, and nothing else' },
      );
    if (snapshot.kind === 'active') await this.#host.exportSnapshot(snapshotKeyOf(name), file, context);
    else {
      const chainId = snapshot.chain.at(-1);
      if (chainId === undefined)
        throw new CimletError('failed-precondition', `${operation}: it has no layers`);
      await this.#host.exportLayer({ chainId, format: snapshot.format }, file, context);
    }
    return digestFile(file, context.signal);
  }

  /** What it takes itself, without its parents. */
  async usage(name: string, context: EffectContext): Promise<SnapshotUsage> {
    const { kind, chain, format } = this.#require(name, `usage of snapshot ${JSON.stringify(name)}`);
    if (kind !== 'committed') return this.#host.snapshotUsage(snapshotKeyOf(name), context);
    const { layers } = await this.#observe(context);
    const found = layers.find((layer) => layer.chainId === chain.at(-1) && layer.format === format);
    return { bytes: found?.bytes ?? 0, files: found?.files ?? 0 };
  }

  /** Throws `not-found`. */
  stat(name: string): NamedSnapshot {
    return this.#require(name, `stat snapshot ${JSON.stringify(name)}`);
  }

  /**
   * Changes labels, all that can be changed: those named by field paths (`labels.team`; one without a value goes), or all of them (`labels`,
   * or no field path). Throws `not-found`, `invalid-manifest` for any other field.
   */
  update(name: string, labels: Record<string, string>, fieldPaths: readonly string[] = []): NamedSnapshot {
    const operation = `update snapshot ${JSON.stringify(name)}`;
    const snapshot = this.#require(name, operation);
    const updated = changeLabels(snapshot.labels, labels, fieldPaths, operation);
    this.#names.put({ ...snapshot, labels: updated });
    return this.#require(name, operation);
  }

  /** Those that any of the filters lets through, or all; in the order of their names. */
  walk(filters: readonly string[] = []): NamedSnapshot[] {
    const parsed = filters.map(parseFilter);
    return this.#names
      .all()
      .filter((snapshot) => parsed.length === 0 || parsed.some((passes) => passes(snapshot)));
  }

  /**
   * Finishes or undoes what a crash left half done. What can't be repaired is warned of; it stays as it is, and whoever asks this snapshotter for
   * it gets its error.
   */
  async repair(context: EffectContext): Promise<void> {
    await this.#unfinished.repair(context);
  }

  async #make(
    kind: 'active' | 'view',
    name: string,
    parent: string | undefined,
    { labels = {}, format: wanted, scratch }: PrepareOptions,
    context: EffectContext,
  ): Promise<NamedSnapshot> {
    const operation = `prepare snapshot ${JSON.stringify(name)}`;
    this.#requireFree(name, operation);
    const below = parent === undefined ? undefined : await this.#chainOf(parent, operation, context);
    const format = below?.format ?? wanted ?? preferredFormat(await this.#host.capabilities(), operation);
    if (wanted !== undefined && wanted !== format)
      throw new CimletError('failed-precondition', `${operation}: ${parent} is ${format}, not ${wanted}`);
    const chain = below?.chain ?? [];
    const actives = this.#names.all().flatMap((each) => (each.kind === 'active' ? [each.name] : []));
    const asked = kind === 'active' ? scratchAskedFor(scratch, labels, actives, operation) : undefined;
    const sharing = asked?.shareWith === undefined ? {} : { shareWith: snapshotKeyOf(asked.shareWith) };
    const own = asked === undefined ? undefined : { ...asked, ...sharing };
    const snapshot = { name, kind, parent, format, chain, scratch: own, labels } as const;
    const wasThere = await this.#isOnHost(name, context);
    this.#names.put({ ...snapshot, chain: [...chain], state: 'preparing' });
    try {
      const request = { key: snapshotKeyOf(name), kind, chain, format, scratch: own };
      if (format === 'BlockCIM' && chain.length > 1) await this.#host.mergeChain({ chain, format }, context);
      await this.#host.prepareSnapshot(request, context);
    } catch (error) {
      const undoing = { ...context, signal: new AbortController().signal };
      // What was there before is from a state that was lost, and may hold what somebody wrote.
      if (!wasThere && (await this.#isOnHost(name, undoing)))
        await this.#host.removeSnapshot(snapshotKeyOf(name), undoing);
      this.#names.forget(name);
      throw kind === 'active' ? namingLabels(error, labels) : error;
    }
    this.#names.put({ ...snapshot, chain: [...chain], state: 'ready' });
    return this.#require(name, operation);
  }

  /** The chain that a parent's name or chain ID stands for. */
  async #chainOf(parent: string, operation: string, context: EffectContext): Promise<ParentChain> {
    this.#unfinished.refuse(parent);
    const named = this.#names.get(parent);
    return named === undefined
      ? chainOfLayer((await this.#observe(context)).layers, parent, operation)
      : chainOfNamed(named, operation);
  }

  #require(name: string, operation: string): NamedSnapshot {
    this.#unfinished.refuse(name);
    const found = this.#names.get(name);
    if (found === undefined)
      throw new CimletError('not-found', `${operation}: there is no snapshot ${JSON.stringify(name)}`);
    return found;
  }

  #requireFree(name: string, operation: string): void {
    if (name === '' || name.includes('\0') || Buffer.byteLength(name) > LONGEST_NAME)
      throw new CimletError('invalid-manifest', `${operation}: ${JSON.stringify(name)} is no name`);
    this.#unfinished.refuse(name);
    if (this.#names.get(name) !== undefined)
      throw new CimletError('already-exists', `${operation}: there is a snapshot ${JSON.stringify(name)}`);
  }

  async #isOnHost(name: string, context: EffectContext): Promise<boolean> {
    const { snapshots } = await this.#observe(context);
    return snapshots.some(({ key }) => key === snapshotKeyOf(name));
  }

  #observe(context: EffectContext): Promise<HostState> {
    return this.#host.observe({ signal: context.signal });
  }
}

async function digestFile(file: string, signal: AbortSignal): Promise<{ diffId: DiffId; bytes: number }> {
  const hash = createHash('sha256');
  let bytes = 0;
  try {
    for await (const chunk of createReadStream(file, { signal })) {
      hash.update(chunk as Buffer);
      bytes += (chunk as Buffer).length;
    }
  } catch (error) {
    throw classify(error, `read ${file}`);
  }
  return { diffId: `sha256:${hash.digest('hex')}` as DiffId, bytes };
}
