/** One source: what it declares now, kept up to date. What can't be read or isn't sound changes nothing. */

import { CimletError } from '../errors.ts';
import { loadManifestContents } from '../manifests/load.ts';
import type { Problem, Resource } from '../manifests/resources.ts';
import type { Revision, Source } from '../sources/source.ts';
import type { AgentLog } from './log.ts';

/** The revision of a source that is in force. */
export interface Declaration {
  revision: string;
  resources: readonly Resource[];
}

export interface FollowOptions {
  signal: AbortSignal;
  onDeclared: (declaration: Declaration) => void;
  /** The latest revision can't be had or isn't sound; the one in force stays. Undefined when all is well again. */
  onTrouble: (trouble: CimletError | undefined) => void;
  log: AgentLog;
}

/** Problems that a message names; the rest is counted. */
const NAMED = 3;

/** Goes on until the signal aborts. Starts with what was in force last, whether the source can be reached or not. */
export async function followSource(source: Source, options: FollowOptions): Promise<void> {
  const { signal, onDeclared, onTrouble, log } = options;
  /** Name of the revision looked at last that is in force. */
  let latest: string | undefined;
  let isInForce = false;

  const restore = async () => {
    const accepted = await source.accepted();
    if (accepted === undefined) return;
    const { resources, problems } = loadManifestContents(accepted.manifests);
    // A later release may read the same manifests otherwise.
    if (problems.length > 0) return;
    isInForce = true;
    onDeclared({ revision: accepted.name, resources });
  };
  const look = async () => {
    const revision = await source.sync(signal);
    if (revision.name === latest) return;
    const { resources, problems } = loadManifestContents(revision.manifests);
    if (problems.length > 0) throw unsound(source.name, revision, problems);
    if (revision.manifests.length === 0 && isInForce) throw emptied(source.name, revision);
    await source.accept(revision);
    // Only now: what was refused, or could not be kept, is looked at again, and stays a trouble until it isn't one.
    latest = revision.name;
    isInForce = true;
    for (const warning of revision.warnings) log.warn({ source: source.name }, warning);
    log.info({ source: source.name, revision: revision.name, resources: resources.length }, 'new revision');
    onDeclared({ revision: revision.name, resources });
  };
  const lookAndClear = async () => {
    await look();
    onTrouble(undefined);
  };
  const tell = async (attempt: () => Promise<void>, report: (error: CimletError) => void) => {
    try {
      await attempt();
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof CimletError)) throw error;
      report(error);
    }
  };

  await tell(restore, ({ code, hint, message }) => log.warn({ source: source.name, code, hint }, message));
  await tell(lookAndClear, onTrouble);
  for await (const _ of source.changes(signal)) await tell(lookAndClear, onTrouble);
}

function unsound(name: string, revision: Revision, problems: readonly Problem[]): CimletError {
  const named = problems.slice(0, NAMED).map(({ position, field, message }) => {
    const { file, line, column } = position;
    return `${file}:${line}:${column}: ${field === '' ? '' : `${field}: `}${message}`;
  });
  const more = problems.length > NAMED ? `; and ${problems.length - NAMED} more` : '';
  return new CimletError(
    'invalid-manifest',
    `source ${name}: revision ${revision.name} is not applied: ${named.join('; ')}${more}`,
    { hint: 'mend the manifests; until then what was in force stays' },
  );
}

function emptied(name: string, revision: Revision): CimletError {
  return new CimletError(
    'failed-precondition',
    `source ${name}: revision ${revision.name} has no manifests at all; what was in force stays`,
    { hint: 'to remove everything, use cimlet delete; else check path, include and ignore of the source' },
  );
}
