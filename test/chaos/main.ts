/** `npm run chaos -- [--rounds N] [--seed S]` */

import { parseArgs } from 'node:util';
import { runChaos } from './chaos.ts';
import { HOST_TRANSITIONS } from './transitions.ts';

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '20' }, seed: { type: 'string' } },
});
const seed = Number(values.seed ?? Date.now() % 1_000_000);
console.log(`chaos: ${values.rounds} rounds, seed ${seed}`);
const rounds = Number(values.rounds);
await runChaos({ transitions: HOST_TRANSITIONS, rounds, seed, say: (line) => console.log(line) });
console.log('everything converged, and nothing was left behind');
