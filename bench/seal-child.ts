/** Seals the container named and prints the seconds that took: the first seal in a process, before anything in it is warm. */

import { sealContainer } from '../src/cim/seal.ts';

const [file = ''] = process.argv.slice(2);
const start = performance.now();
await sealContainer(file);
console.log((performance.now() - start) / 1000);
