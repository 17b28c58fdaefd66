import { describe, test } from 'vitest';
import { createEmbeddedHost } from '../../src/hosts/embedded/embedded-host.ts';
import { isRoot, requireOrSkip } from '../support/requirements.ts';
import { runChaos } from './chaos.ts';

const capabilities = await createEmbeddedHost({ root: '/nowhere' }).capabilities();
const kernel = requireOrSkip('root and kernel EROFS mounts', isRoot && capabilities['view.Kernel'].available);

describe.runIf(kernel)('chaos, a short run of it', () => {
  test('everything comes to what is declared, and nothing else is left', async () => {
    await runChaos({ rounds: 8, seed: 20261120, say: (line) => console.log(line) });
  });
});
