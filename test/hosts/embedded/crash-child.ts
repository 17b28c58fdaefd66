/** Builds, merges and mounts what its arguments say, a line for each step done, until it is killed. Arguments: root, JSON file. */

import { readFileSync } from 'node:fs';
import { createEmbeddedHost } from '../../../src/hosts/embedded/embedded-host.ts';
import type { EffectContext, MergeRequest, MountRequest, UnpackRequest } from '../../../src/hosts/host.ts';

const [root = '', work = ''] = process.argv.slice(2);
const { requests, merges, mounts } = JSON.parse(readFileSync(work, 'utf8')) as {
  requests: UnpackRequest[];
  merges: MergeRequest[];
  mounts: MountRequest[];
};
const say = (text: string): void => void process.stdout.write(`${text}\n`);
const context: EffectContext = {
  signal: new AbortController().signal,
  progress: ({ phase, done, total }) => say(`${phase} ${done}/${total}`),
};
const host = createEmbeddedHost({ root });
for (const request of requests) {
  say('unpack');
  await host.unpackLayer(request, context);
  say('commit');
  await host.commitLayer(request, context);
}
for (const merge of merges) {
  say('merge');
  await host.mergeChain(merge, context);
}
for (const mount of mounts) {
  say('mount');
  await host.mount(mount, context);
}
say('done');
