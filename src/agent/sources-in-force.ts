/** All sources that an agent follows: what each declares, how the last look at it went, who suspended it. */

import { CimletError, disposition } from '../errors.ts';
import type { HostLabels } from '../reconciler/host-labels.ts';
import type { DeclaredSource } from '../reconciler/types.ts';
import type { Condition, EventRecord, Suspension } from '../state/records.ts';
import type { State } from '../state/state.ts';
import type { Declaration } from './declaration.ts';
import { collectSources, type FollowedSource, type SourceWarning } from './declared-sources.ts';
import { followSource, type Look, restoreSource } from './follow-source.ts';
import type { AgentLog } from './log.ts';
import { conditionsAfter, reasonOf, type SourceStatus, sourceStatus } from './source-status.ts';

export interface SourcesOptions {
  sources: readonly FollowedSource[];
  state: State;
  log: AgentLog;
  /** See AgentOptions. */
  pruneHoldMs: number;
  /** What is declared changed, or what may be pruned. */
  onChanged: () => void;
}

export class SourcesInForce {
  readonly #options: SourcesOptions;
  readonly #declared = new Map<string, Declaration>();
  /** The latest of each source. */
  readonly #looks = new Map<string, Look>();
  /** When a source that can't be read was first found so; never over (Infinity) once it could be and was refused. */
  readonly #unreadSince = new Map<string, number>();
  readonly #conditions = new Map<string, readonly Condition[]>();
  /** Called after each look at a source. */
  readonly #onLook = new Set<() => void>();

  constructor(options: SourcesOptions) {
    this.#options = options;
  }

  /** Reads what was in force of a source before this process. */
  async restore({ source }: FollowedSource): Promise<void> {
    const declaration = await restoreSource(source, this.#options.log);
    if (declaration !== undefined) this.#declare(source.name, declaration);
  }

  /** Goes on until the signal aborts. */
  async follow({ source }: FollowedSource, signal: AbortSignal): Promise<void> {
    await followSource(source, {
      signal,
      log: this.#options.log,
      isInForce: this.#declared.has(source.name),
      onDeclared: (declaration) => {
        const { revision, resources } = declaration;
        const isNew = this.#declared.get(source.name)?.revision !== revision;
        this.#declare(source.name, declaration);
        const message = `${revision} is in force, with ${resources.length} resources`;
        if (isNew)
          this.#recordEvent({ key: `Source/${source.name}`, type: 'Normal', reason: 'NewRevision', message });
      },
      onLook: (look) => this.#lookedAt(source.name, look),
    });
  }

  /** A source, or each, is looked at soon, should somebody have changed it. */
  look(name?: string): void {
    for (const { source } of this.#named(name)) source.touch();
  }

  /** Has a source, or each, looked at; resolves when it was, from now on, whatever came of it. */
  async lookNow(name: string | undefined, signal: AbortSignal): Promise<void> {
    const asked = this.#named(name);
    const askedAt = performance.now();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const check = () => {
      if (asked.every(({ source }) => (this.#looks.get(source.name)?.begunAt ?? 0) > askedAt)) resolve();
    };
    const give = () => reject(new CimletError('cancelled', 'nobody waits for the looks any more'));
    this.#onLook.add(check);
    signal.addEventListener('abort', give, { once: true });
    try {
      if (signal.aborted) give();
      this.look(name);
      check();
      await promise;
    } finally {
      this.#onLook.delete(check);
      signal.removeEventListener('abort', give);
    }
  }

  /** What they declare together; nothing of it is pruned before each was looked at. `largestPrune`: see prune-safety.ts. */
  collect(
    largestPrune: number,
    labels: HostLabels = {},
  ): { sources: DeclaredSource[]; warnings: SourceWarning[] } {
    const followed = this.#followed();
    // What was moved from one source to another meanwhile would look as if it were gone.
    const pruned = this.wereLookedAt ? followed : followed.map((each) => ({ ...each, prune: false }));
    const { resources } = this.#options.state.records();
    return collectSources(pruned, this.#declared, resources, largestPrune, labels, this.#unread);
  }

  /** Names of those of which nothing was ever read. */
  get neverRead(): string[] {
    return this.#options.sources.map(({ source }) => source.name).filter((name) => !this.#declared.has(name));
  }

  get wereLookedAt(): boolean {
    return this.#options.sources.every(({ source }) => this.#looks.has(source.name));
  }

  statuses(): SourceStatus[] {
    return this.#followed().map(({ source: { name }, id: sourceId, suspended }) => {
      const conditions = this.#conditions.get(name) ?? [];
      const known = { name, sourceId, suspended, conditions };
      return sourceStatus(known, this.#declared.get(name), this.#looks.get(name));
    });
  }

  #named(name: string | undefined): readonly FollowedSource[] {
    return this.#options.sources.filter(({ source }) => name === undefined || source.name === name);
  }

  /** The sources, with what was suspended by a command. */
  #followed(): FollowedSource[] {
    const { state, sources } = this.#options;
    const suspensions = new Map<string, Suspension>(state.suspensions().map((each) => [each.key, each]));
    return sources.map((followed) => {
      const known = suspensions.get(`Source/${followed.source.name}`);
      if (known === undefined) return followed;
      const { reason, by, since } = known;
      return { ...followed, suspended: { reason, by, since } };
    });
  }

  /**
   * Sources whose latest revision isn't known; suspended ones too, to which something may have moved. One that is down for good doesn't
   * count, as long as something of it is in force: else what left others would stay on the host for ever. One whose revision was refused
   * does until it is mended: what moved is most likely in that.
   */
  get #unread(): string[] {
    const { sources, pruneHoldMs } = this.#options;
    const isUnread = ({ source: { name } }: FollowedSource) => {
      if (this.#looks.get(name)?.isInForce === true) return false;
      const since = this.#unreadSince.get(name) ?? performance.now();
      return !this.#declared.has(name) || performance.now() - since < pruneHoldMs;
    };
    return sources.filter(isUnread).map(({ source }) => source.name);
  }

  get #isPruningHeld(): boolean {
    return !this.wereLookedAt || this.#unread.length > 0;
  }

  #declare(source: string, declaration: Declaration): void {
    this.#declared.set(source, declaration);
    this.#options.onChanged();
  }

  #lookedAt(source: string, look: Look): void {
    const { log, onChanged } = this.#options;
    const before = this.#looks.get(source);
    const { wereLookedAt } = this;
    const wasHeld = this.#isPruningHeld;
    this.#looks.set(source, look);
    if (look.isInForce) this.#unreadSince.delete(source);
    else if (isRefused(look)) this.#unreadSince.set(source, Number.POSITIVE_INFINITY);
    else if (!this.#unreadSince.has(source)) this.#unreadSince.set(source, performance.now());
    this.#conditions.set(source, conditionsAfter(look, this.#conditions.get(source) ?? []));
    // What could not be pruned until now, can, or it can be told why it can't.
    if (this.wereLookedAt !== wereLookedAt || (wasHeld && !this.#isPruningHeld)) onChanged();
    for (const tell of this.#onLook) tell();
    const key = `Source/${source}`;
    const { trouble } = look;
    if (trouble === undefined) {
      if (before?.trouble === undefined) return;
      const message = 'the latest revision is in force again';
      this.#recordEvent({ key, type: 'Normal', reason: 'Recovered', message });
      log.info({ source }, message);
      return;
    }
    const { code, hint, message } = trouble;
    this.#recordEvent({ key, type: 'Warning', reason: reasonOf(look), message });
    if (before?.trouble?.message !== message) log.warn({ source, code, hint }, message);
  }

  #recordEvent(event: Pick<EventRecord, 'key' | 'type' | 'reason' | 'message'>): void {
    recordIfRoom(this.#options, event);
  }
}

/** Whether there is a latest revision that can't be taken, rather than a source that is away or gone. */
function isRefused({ isInForce, trouble }: Look): boolean {
  if (isInForce || trouble === undefined) return false;
  return disposition(trouble.code) !== 'retry' && trouble.code !== 'not-found';
}

/** A full disk takes no events, and must not end the agent: what is said by them is logged as well. */
export function recordIfRoom(
  { state, log }: { state: State; log: AgentLog },
  event: Pick<EventRecord, 'key' | 'type' | 'reason' | 'message'>,
): void {
  try {
    state.recordEvent(event);
  } catch (error) {
    if (!(error instanceof CimletError) || disposition(error.code) !== 'retry') throw error;
    log.warn({ code: error.code, hint: error.hint }, error.message);
  }
}
