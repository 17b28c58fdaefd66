/** Every named transition of the machines, and what the driver can see of it from outside. */

/**
 * By machine and state, the effect that the state runs: of the host, or what is asked of the registry meanwhile. A
 * state is entered before its effect and left after it; what became of it is recorded after that.
 */
export const EFFECTS = {
  'image.resolving': 'manifest',
  'image.fetching': 'layer',
  'snapshot.unpacking': 'unpackLayer',
  'snapshot.committing': 'commitLayer',
  'snapshot.removing': 'removeLayer',
  'merge.merging': 'mergeChain',
  'merge.removing': 'removeMerge',
  'mount.dismounting': 'dismount',
  'mount.mounting': 'mount',
  'mount.preparing': 'prepareSnapshot',
  'mount.removing': 'removeSnapshot',
} as const;

export interface Transition {
  state: keyof typeof EFFECTS;
  /** Entering a state is before its effect, leaving it after. */
  when: 'before' | 'after';
}

const STATES = Object.keys(EFFECTS) as Transition['state'][];

/** Those of effects of the host. */
export const HOST_TRANSITIONS: readonly Transition[] = STATES.filter(
  (state) => !state.startsWith('image.'),
).flatMap((state) => [
  { state, when: 'before' },
  { state, when: 'after' },
]);
