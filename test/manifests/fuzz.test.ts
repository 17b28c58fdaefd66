import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { loadManifests } from '../../src/manifests/load.ts';
import type { LoadedManifests } from '../../src/manifests/resources.ts';
import { loadText, withFolder } from './support.ts';

const VALID = `apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: {name: nano, labels: {a: b}}
spec:
  source: {ociLayout: ../x} # comment
  platform: {os: windows, osVersion: 10.0.26100}
  suspend: {reason: "why", by: ops}
---
apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata:
  name: nano
spec:
  format: ForkedCIM
  layers:
    - image: nano
    - &tools {archive: tools.tar}
    - *tools
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: {name: nano}
spec:
  chain: nano
  path: |-
    /mnt/nano
  dependsOn: [{kind: Image, name: nano}]
`;

/** Whatever the text was: places exist, nothing is said twice at one place, and either it is valid or a problem says why not. */
function expectSound({ resources, problems }: LoadedManifests, text: string): void {
  const lines = text.split('\n').length;
  for (const { position, message } of problems) {
    expect(position.line).toBeGreaterThanOrEqual(1);
    expect(position.line).toBeLessThanOrEqual(lines);
    expect(position.column).toBeGreaterThanOrEqual(1);
    expect(message).not.toBe('');
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is looked for
    expect(message).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/);
  }
  for (const { kind, spec } of resources) {
    expect(['Image', 'LayerChain', 'Mount']).toContain(kind);
    expect(typeof spec).toBe('object');
  }
  expect(resources.length + problems.length).toBeGreaterThan(0);
}

const yamlWord = fc.constantFrom(
  'apiVersion: cimlet.dev/v1alpha1',
  'kind: Mount',
  'kind: Image',
  'metadata:',
  'name: a',
  'spec:',
  'source:',
  'path: /x',
  '- ',
  '? ',
  ': ',
  '&a ',
  '*a',
  '!t ',
  '!!str ',
  '|',
  '>',
  '"',
  "'",
  '{',
  '}',
  '[',
  ']',
  ',',
  '#',
  '%YAML 1.1',
  '---',
  '...',
  '\n',
  '\n  ',
  '\n    ',
  '\t',
  ' ',
  '<<: *a',
  '~',
  '1',
  '.nan',
  '\u0000',
  '\u2028',
  '\ud800',
  'é',
  '__proto__: ',
  'constructor: ',
);

describe('whatever the text', () => {
  it('YAML-ish', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(yamlWord, { maxLength: 60 }), async (words) => {
        const text = words.join('');
        expectSound(await loadText(text), text);
      }),
      { numRuns: 1500 },
    );
  });

  it('valid manifests, cut, repeated and overwritten', async () => {
    const edit = fc.record({
      at: fc.nat(VALID.length),
      remove: fc.nat(12),
      insert: fc.oneof(yamlWord, fc.string({ maxLength: 6 }), fc.string({ unit: 'binary', maxLength: 4 })),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(edit, { minLength: 1, maxLength: 6 }), async (edits) => {
        const text = edits.reduce(
          (before, { at, remove, insert }) => before.slice(0, at) + insert + before.slice(at + remove),
          VALID,
        );
        expectSound(await loadText(text), text);
      }),
      { numRuns: 1000 },
    );
  });

  it('any data where a manifest is expected', async () => {
    const part = fc.jsonValue({ maxDepth: 4 });
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom('Image', 'LayerChain', 'Mount'),
        part,
        part,
        async (kind, metadata, spec) => {
          const text = JSON.stringify({ apiVersion: 'cimlet.dev/v1alpha1', kind, metadata, spec });
          expectSound(await loadText(text), text);
        },
      ),
      { numRuns: 1000 },
    );
  });

  it('any bytes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (bytes) => {
        await withFolder({ 'a.yaml': bytes }, async (folder) => {
          expectSound(await loadManifests([folder]), Buffer.from(bytes).toString('latin1'));
        });
      }),
      { numRuns: 300 },
    );
  });

  it('the valid one itself', async () => {
    const { problems, resources } = await loadText(VALID);
    expect(problems).toEqual([]);
    expect(resources).toHaveLength(3);
  });
});
