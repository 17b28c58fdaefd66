/** One page of a repository's tags. Source: OCI distribution-spec v1.1, "Listing Tags". */

import { parseTagList } from '../documents.ts';
import { isTag } from './reference.ts';

/** The tags of a page that are tags; servers may list names that nothing can be pulled by. */
export function parseTags(bytes: Uint8Array, name: string): string[] {
  return parseTagList(bytes, name).filter(isTag);
}
