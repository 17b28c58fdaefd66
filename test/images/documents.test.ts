import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import {
  parseConfig,
  parseDockerManifest,
  parseIndex,
  parseLayoutVersion,
  parseManifest,
} from '../../src/images/documents.ts';

const digest = `sha256:${'a'.repeat(64)}`;
const descriptor = { mediaType: 'x', digest, size: 1 };

function complaint(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof CimletError && error.code === 'corrupt') return error.message;
    throw error;
  }
  throw new Error('expected an error');
}

const json = (value: unknown) => Buffer.from(JSON.stringify(value));

describe('complaints name the document and the member', () => {
  it.each([
    [{}, 'manifests is missing'],
    [[], 'the document is not an object'],
    [null, 'the document is missing'],
    [{ manifests: {} }, 'manifests is not a list'],
    [{ manifests: [descriptor, {}] }, 'manifests[1].digest is missing'],
    [
      { manifests: [{ ...descriptor, digest: 'sha256:AA' }] },
      'manifests[0].digest is not a sha256 or sha512 digest',
    ],
    [{ manifests: [{ ...descriptor, digest: '../../etc/passwd' }] }, 'manifests[0].digest is not'],
    [{ manifests: [{ ...descriptor, size: -1 }] }, 'manifests[0].size is not a size in bytes'],
    [{ manifests: [{ ...descriptor, size: 1.5 }] }, 'manifests[0].size is not a size in bytes'],
    [{ manifests: [{ ...descriptor, size: '1' }] }, 'manifests[0].size is not a size in bytes'],
    [{ manifests: [{ ...descriptor, annotations: { a: 1 } }] }, 'manifests[0].annotations.a is not a text'],
    [
      { manifests: [{ ...descriptor, platform: { os: 'linux' } }] },
      'manifests[0].platform.architecture is missing',
    ],
    [
      {
        manifests: [{ ...descriptor, platform: { os: 'windows', architecture: 'amd64', 'os.version': 10 } }],
      },
      'manifests[0].platform["os.version"] is not a text',
    ],
    [{ manifests: [], layers: [] }, 'must not have the member `layers`'],
  ])('index %j', (content, expected) => {
    expect(complaint(() => parseIndex(json(content), 'i.json'))).toContain(`i.json: `);
    expect(complaint(() => parseIndex(json(content), 'i.json'))).toContain(expected);
  });

  it.each([
    [{ layers: [] }, 'config is missing'],
    [{ config: descriptor }, 'layers is missing'],
    [{ config: descriptor, layers: [descriptor, 7] }, 'layers[1] is not an object'],
    [{ config: descriptor, layers: [], manifests: [] }, 'must not have the member `manifests`'],
  ])('manifest %j', (content, expected) => {
    expect(complaint(() => parseManifest(json(content), 'm'))).toContain(expected);
  });

  it.each([
    [{ os: 'linux', architecture: 'amd64' }, 'rootfs is missing'],
    [
      { os: 'linux', architecture: 'amd64', rootfs: { diff_ids: ['x'] } },
      'rootfs.diff_ids[0] is not a digest',
    ],
    [{ architecture: 'amd64', rootfs: {} }, 'os is missing'],
  ])('configuration %j', (content, expected) => {
    expect(complaint(() => parseConfig(json(content), 'c'))).toContain(expected);
  });

  it.each([
    [{}, 'the document is not a list'],
    [[{ Layers: [] }], '[0].Config is missing'],
    [[{ Config: 'c', Layers: [1] }], '[0].Layers[0] is not a text'],
  ])('manifest.json %j', (content, expected) => {
    expect(complaint(() => parseDockerManifest(json(content), 'manifest.json'))).toContain(expected);
  });

  it('layout version', () => {
    expect(
      complaint(() => parseLayoutVersion(json({ imageLayoutVersion: '2.0.0' }), 'oci-layout')),
    ).toContain('2.0.0');
  });
});

describe('text that is no JSON is pointed at', () => {
  it.each([
    ['', '1:1'],
    ['{', '1:2'],
    ['garbage', '1:1'],
    ['{"manifests": [],}', '1:18'],
    ['{"manifests":\n  [}', '2:4'],
    ['{"a": 1}\n\n  x', '3:3'],
    ['{"a" 1}', '1:6'],
    ['{"a": 01}', '1:7'],
    ['[1 2]', '1:4'],
    ['[1,]', '1:4'],
    ['["a\nb"]', '1:2'],
    ['{"a": tru}', '1:7'],
    ["{'a': 1}", '1:2'],
    ['{} {}', '1:4'],
    ['[1}', '1:3'],
    ['{1: 2}', '1:2'],
  ])('%j', (text, position) => {
    expect(complaint(() => parseIndex(Buffer.from(text), 'f'))).toBe(`f:${position}: not valid JSON`);
  });

  it('that is no UTF-8 either is said so', () => {
    expect(complaint(() => parseIndex(Buffer.from([0x7b, 0xff, 0x7d]), 'f'))).toBe('f: not UTF-8 text');
  });

  it('and JSON.parse agrees on what is JSON', () => {
    const text = JSON.stringify(
      { manifests: [descriptor, { a: [1, -2.5e3, true, null, 'ü\n"'] }] },
      undefined,
      1,
    );
    fc.assert(
      fc.property(
        fc.nat(text.length - 1),
        fc.constantFrom('', '"', ',', '}', ']', '0', ' ', 'x', '\\', '\n'),
        (at, put) => {
          const changed = text.slice(0, at) + put + text.slice(at + 1);
          const message = complaint(() => parseIndex(Buffer.from(changed), 'f'));
          let isJson = true;
          try {
            JSON.parse(changed);
          } catch (error) {
            if (!(error instanceof SyntaxError)) throw error;
            isJson = false;
          }
          const position = /^f:(\d+):(\d+): not valid JSON$/.exec(message);
          expect(position === null).toBe(isJson);
          if (position === null) return;
          const lines = changed.split('\n');
          expect(Number(position[1])).toBeLessThanOrEqual(lines.length);
          // What stands before the place pointed at is nothing JSON would stumble over.
          expect(Number(position[2])).toBeLessThanOrEqual((lines[Number(position[1]) - 1] ?? '').length + 1);
        },
      ),
    );
  });

  it('of any kind never fails otherwise', () => {
    const parsers = [parseIndex, parseManifest, parseConfig, parseDockerManifest, parseLayoutVersion];
    fc.assert(
      fc.property(fc.constantFrom(...parsers), fc.oneof(fc.json(), fc.string()), (parse, text) => {
        const isEmptyList = parse === parseDockerManifest && text.trim() === '[]';
        if (!isEmptyList) complaint(() => parse(Buffer.from(text), 'f'));
      }),
    );
  });

  it('nested deeper than any stack is still only an error', () => {
    expect(complaint(() => parseIndex(Buffer.from('['.repeat(1 << 20)), 'f'))).toContain(
      ':1048577: not valid JSON',
    );
    const closed = '['.repeat(1 << 18) + ']'.repeat(1 << 18);
    expect(complaint(() => parseIndex(Buffer.from(closed), 'f'))).toContain('not an object');
  });
});
