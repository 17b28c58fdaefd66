/** Merges block CIMs, topmost first, durably; prints the seconds. Arguments: container, sources. */

import { mergeBlockCims } from '../src/cim/merge.ts';
import { publishContainer } from '../src/cim/publish.ts';

const [file = '', ...sources] = process.argv.slice(2);
const start = performance.now();
const { fileCount } = mergeBlockCims({
  file,
  name: 'merged',
  regionGuid: '6f1c2f0e-5d6d-5c39-8f6b-0d0f5c9a1b14',
  sources,
});
publishContainer(file);
console.log(JSON.stringify({ seconds: (performance.now() - start) / 1000, files: fileCount }));
