/** A real image made by umoci, applied from YAML; its kernel mounts, of forked and of block CIMs, equal umoci's own unpacking. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { expectProgram } from '../support/program.ts';
import { hasTool, isRoot, requireOrSkip } from '../support/requirements.ts';
import { diffTrees, readTree } from '../support/tree.ts';
import { buildUmociImage } from './umoci-image.ts';

const ready = requireOrSkip('umoci and root for a kernel mount', hasTool('umoci') && isRoot);

const FORMATS = [
  { format: 'forked CIMs', chain: 'packages' },
  { format: 'verified block CIMs', chain: 'blocks' },
];

describe.skipIf(!ready)('an image made by umoci', () => {
  let directory = '';
  let image: ReturnType<typeof buildUmociImage>;
  let common: string[] = [];
  const mountPoint = (chain: string): string => join(directory, 'mnt', chain);

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'cimlet-umoci-'));
    image = buildUmociImage(directory);
    writeFileSync(
      join(directory, 'manifests.yaml'),
      `apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: {name: packages}
spec:
  source: {ociLayout: ./layout}
---
apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata: {name: packages}
spec:
  format: ForkedCIM
  layers: [{image: packages}]
---
apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata: {name: blocks}
spec:
  format: BlockCIM
  integrity: Verified
  layers: [{image: packages}]
${FORMATS.map(
  ({ chain }) => `---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: {name: ${chain}}
spec:
  chain: ${chain}
  path: ${mountPoint(chain)}
  view: Kernel
`,
).join('')}`,
    );
    common = ['-f', join(directory, 'manifests.yaml'), '--root', join(directory, 'root')];
  }, 180_000);

  afterAll(async () => {
    await expectProgram(['delete', ...common, '--yes']);
    rmSync(directory, { recursive: true, force: true });
  });

  test('has thousands of files', () => {
    expect(image.files).toBeGreaterThan(3000);
  });

  test('is applied, and plans empty afterwards', async () => {
    await expectProgram(['apply', ...common, '--yes']);
    await expectProgram(['plan', ...common, '--detailed-exitcode'], 0);
  }, 180_000);

  test.each(FORMATS)('equals the unpacked tree as $format', ({ chain }) => {
    expect(diffTrees(readTree(image.unpacked), readTree(mountPoint(chain)))).toEqual([]);
  });
});
