/** Unpacks and commits one layer on the embedded host; prints the seconds. Arguments: blob, digest, diff ID, root. */

import { statSync } from 'node:fs';
import { createEmbeddedHost } from '../src/hosts/embedded/embedded-host.ts';
import type { ChainId, DiffId, Digest } from '../src/hosts/host.ts';

const [file = '', digest = '', diffId = '', root = ''] = process.argv.slice(2);
const host = createEmbeddedHost({ root });
const context = { signal: new AbortController().signal };
const start = performance.now();
const ref = { chainId: diffId as ChainId, format: 'ForkedCIM' as const };
await host.unpackLayer(
  {
    ...ref,
    diffId: diffId as DiffId,
    parents: [],
    blob: {
      file,
      offset: 0,
      size: statSync(file).size,
      digest: digest as Digest,
      mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
    },
  },
  context,
);
await host.commitLayer(ref, context);
console.log(JSON.stringify({ seconds: (performance.now() - start) / 1000 }));
