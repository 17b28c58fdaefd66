/** A damaged state database must not stop an agent: what is on the host can be found again, and is. */

import { join } from 'node:path';
import { isErrorCode } from '../errors.ts';
import { checkIntegrity, openForWriting, setDatabaseAside } from './database.ts';
import { openState, type State } from './state.ts';

export interface RecoveredState {
  state: State;
  /** Where the damaged database is now, if it was damaged. */
  setAside?: string | undefined;
}

/**
 * Opens the state of `root` for writing. A damaged database is set aside and an empty one takes its place: what the
 * manifests declare is adopted from the host as it is planned. What is lost is what was to be pruned.
 */
export function openOrRecoverState(root: string): RecoveredState {
  const file = join(root, 'state.db');
  const setAside = isSound(file) ? undefined : setDatabaseAside(file);
  return { state: openState(root, { readOnly: false }), setAside };
}

function isSound(file: string): boolean {
  try {
    const database = openForWriting(file);
    try {
      checkIntegrity(database, file);
    } finally {
      database.close();
    }
    return true;
  } catch (error) {
    if (isErrorCode(error, 'corrupt')) return false;
    throw error;
  }
}
