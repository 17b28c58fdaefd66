/** One source: what it declares now, kept up to date. What can't be read changes nothing. */

import { CimletError } from '../errors.ts';
import type { Revision, Source } from '../sources/source.ts';
import { type Declaration, describeInvalid, readDeclaration } from './declaration.ts';
import type { AgentLog } from './log.ts';

/** What came of a look at a source. */
export interface Look {
  /** When it began, as `performance.now` has it. */
  begunAt: number;
  /** False when the latest revision can't be had or is refused: what was in force stays, what it declares isn't known. */
  isInForce: boolean;
  /** Why not, or why not all of it. */
  trouble?: CimletError | undefined;
}

export interface FollowOptions {
  signal: AbortSignal;
  /** Whether something was restored that is in force. */
  isInForce: boolean;
  onDeclared: (declaration: Declaration) => void;
  /** Called after each look. */
  onLook: (look: Look) => void;
  log: AgentLog;
}

/** What was in force last, whether the source can be reached or not; undefined when nothing was, or it can't be read. */
export async function restoreSource(source: Source, log: AgentLog): Promise<Declaration | undefined> {
  try {
    const accepted = await source.accepted();
    // Throws when a later release reads the same manifests otherwise.
    return accepted === undefined ? undefined : readDeclaration(source.name, accepted);
  } catch (error) {
    if (!(error instanceof CimletError)) throw error;
    const { code, hint, message } = error;
    log.warn({ source: source.name, code, hint }, message);
    return undefined;
  }
}

/** Goes on until the signal aborts. */
export async function followSource(source: Source, options: FollowOptions): Promise<void> {
  const { signal, onDeclared, onLook, log } = options;
  /** Name of the revision looked at last that is in force. */
  let latest: string | undefined;
  let { isInForce } = options;
  /** With the revision looked at last, although it is in force. */
  let trouble: CimletError | undefined;

  const look = async (begunAt: number) => {
    const revision = await source.sync(signal);
    if (revision.name === latest) return onLook({ begunAt, isInForce: true, trouble });
    const declaration = readDeclaration(source.name, revision);
    if (revision.manifests.length === 0 && isInForce) throw emptied(source.name, revision);
    await source.accept(revision);
    // Only now: what was refused, or could not be kept, is looked at again, and stays a trouble until it isn't one.
    latest = revision.name;
    isInForce = true;
    trouble = describeInvalid(source.name, declaration);
    for (const warning of revision.warnings) log.warn({ source: source.name }, warning);
    const resources = declaration.resources.length;
    log.info({ source: source.name, revision: revision.name, resources }, 'new revision');
    onLook({ begunAt, isInForce: true, trouble });
    onDeclared(declaration);
  };
  const lookOrTell = async () => {
    const begunAt = performance.now();
    try {
      await look(begunAt);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof CimletError)) throw error;
      onLook({ begunAt, isInForce: false, trouble: error });
    }
  };

  await lookOrTell();
  for await (const _ of source.changes(signal)) await lookOrTell();
}

function emptied(name: string, revision: Revision): CimletError {
  return new CimletError(
    'failed-precondition',
    `source ${name}: revision ${revision.name} has no manifests at all; what was in force stays`,
    { hint: 'to remove everything, use cimlet delete; else check path, include and ignore of the source' },
  );
}
