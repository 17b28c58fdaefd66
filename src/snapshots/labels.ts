/** Changes of a snapshot's labels, as containerd's field paths say them. */

import { CimletError } from '../errors.ts';

export type Labels = Record<string, string>;

/**
 * All of them (`labels`, or no field path), or those named (`labels.team`; one without a value goes). Throws
 * `invalid-manifest` for any other field.
 */
export function changeLabels(
  known: Labels,
  labels: Labels,
  fieldPaths: readonly string[],
  operation: string,
): Labels {
  let changed = fieldPaths.length === 0 ? { ...labels } : { ...known };
  for (const path of fieldPaths) {
    if (path === 'labels') changed = { ...labels };
    else if (path.startsWith('labels.')) {
      const key = path.slice('labels.'.length);
      const value = labels[key];
      if (value === undefined || value === '') delete changed[key];
      else changed[key] = value;
    } else
      throw new CimletError('invalid-manifest', `${operation}: ${path} cannot be changed`, {
        hint: 'labels can',
      });
  }
  return changed;
}
