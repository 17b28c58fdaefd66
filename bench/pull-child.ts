/** Pulls an image into a blob store, as applying an Image does. Arguments: reference, certs.d, root. */

import { join } from 'node:path';
import { openBlobStore } from '../src/images/blob-store.ts';
import { openRegistries } from '../src/images/registry/registries.ts';
import { resolveImage } from '../src/images/resolve-image.ts';

const [reference = '', configPath = '', root = ''] = process.argv.slice(2);
const { signal } = new AbortController();
const store = openBlobStore(join(root, 'images'));
const registries = openRegistries({ store, mayWrite: true, configPath, env: process.env });
try {
  const source = registries.source({
    reference,
    policy: 'Always',
    foreignLayers: 'never',
    digest: undefined,
  });
  const image = await resolveImage(source, { host: { os: 'windows', architecture: 'amd64' } }, signal);
  await Promise.all(image.layers.map(({ blob }) => registries.fetchLayer(blob, { signal })));
  await registries.recordImage({ reference });
} finally {
  await registries.close();
}
