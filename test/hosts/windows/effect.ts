/** Effects of the Windows host that tests have struck (killing.ts), each in a state that can be made again and again. */

import type { EffectContext, Host, UnpackRequest } from '../../../src/hosts/host.ts';
import { context as quiet } from '../../conformance/host.ts';

export interface Effect {
  name: string;
  /** Makes the state that it is in, whatever effect of the same root came before. */
  prepare(host: Host): Promise<unknown>;
  /** Any number of times: what is done already stays. */
  run(host: Host): Promise<unknown>;
  /** It takes away, so that what fails leaves more than there should be. */
  isUndoing?: boolean;
}

export type Family = 'ForkedCIM' | 'BlockCIM' | 'sealed BlockCIM' | 'WCIFS' | 'LCOW';
export const FAMILIES: readonly Family[] = ['ForkedCIM', 'BlockCIM', 'sealed BlockCIM', 'WCIFS', 'LCOW'];

/** What the effects warned of, for who runs them. */
export const warnings: string[] = [];
export const context: EffectContext = { ...quiet, warn: (message) => warnings.push(message) };

/** What the tests keep aside. */
export const BLOBS = 'C:\\blobs';

export async function build(host: Host, requests: readonly UnpackRequest[]): Promise<void> {
  for (const request of requests) {
    await host.unpackLayer(request, context);
    await host.commitLayer(request, context);
  }
}

export function named(effect: Effect, family: Family): Effect {
  return { ...effect, name: `${effect.name} ${family}` };
}
