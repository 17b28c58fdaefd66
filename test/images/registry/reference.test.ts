/** References as docker and containerd read them (github.com/distribution/reference, its own table of cases). */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseReference } from '../../../src/images/registry/reference.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;

describe('references', () => {
  it.each([
    ['nginx', 'docker.io/library/nginx:latest'],
    ['nginx:1.27', 'docker.io/library/nginx:1.27'],
    ['docker.io/nginx', 'docker.io/library/nginx:latest'],
    ['index.docker.io/nginx', 'docker.io/library/nginx:latest'],
    ['library/nginx', 'docker.io/library/nginx:latest'],
    ['dmcgowan/myapp:v1', 'docker.io/dmcgowan/myapp:v1'],
    ['localhost/app', 'localhost/app:latest'],
    ['localhost:5000/a/b:x', 'localhost:5000/a/b:x'],
    ['LOCALHOST/app', 'LOCALHOST/app:latest'],
    ['mcr.microsoft.com/windows/nanoserver:ltsc2025', 'mcr.microsoft.com/windows/nanoserver:ltsc2025'],
    ['127.0.0.1:5000/app', '127.0.0.1:5000/app:latest'],
    ['[2001:db8::1]:5000/app', '[2001:db8::1]:5000/app:latest'],
    [`app@${DIGEST}`, `docker.io/library/app@${DIGEST}`],
    [`r.example/app:v1@${DIGEST}`, `r.example/app:v1@${DIGEST}`],
    ['xn--n3h.com/myimage', 'xn--n3h.com/myimage:latest'],
    ['r.example/a.b__c-d---e/f', 'r.example/a.b__c-d---e/f:latest'],
  ])('%s is %s', (text, canonical) => {
    expect(parseReference(text).canonical).toBe(canonical);
  });

  it.each([
    ['', 'no repository'],
    ['r.example/', 'no repository'],
    ['Nginx', 'capital letters'],
    ['r.example/App', 'capital letters'],
    ['r.example//app', 'empty part'],
    ['r.example/app:', 'no tag'],
    ['r.example/app:-x', 'no tag'],
    [`r.example/app:${'x'.repeat(129)}`, 'no tag'],
    ['r.example/app@sha256:abc', 'digest'],
    ['r.example/app@', 'digest'],
    ['a'.repeat(64), 'image ID'],
    ['r.example/-app', "can't be part"],
    ['r.example/a..b', "can't be part"],
    ['r_x.example/app', 'no host name'],
    ['https://r.example/app', 'no host name'],
    ['user:pass@r.example/app', 'digest'],
    [`r.example/${'a'.repeat(250)}`, 'longer than 255'],
    ['r.example/app\n', "can't be part"],
  ])('%j is none: %s', (text, reason) => {
    expect(() => parseReference(text)).toThrow(
      expect.objectContaining({ code: 'invalid-manifest', message: expect.stringContaining(reason) }),
    );
  });

  it('are the same when their canonical spelling is read again, and only name what an address can hold', () => {
    const part = fc.stringMatching(/^[a-zA-Z0-9._:@/[\]-]{0,12}$/);
    fc.assert(
      fc.property(fc.array(part, { minLength: 1, maxLength: 5 }), (parts) => {
        const text = parts.join('/');
        let found: ReturnType<typeof parseReference>;
        try {
          found = parseReference(text);
        } catch (error) {
          expect(error).toMatchObject({ code: 'invalid-manifest' });
          return;
        }
        expect(parseReference(found.canonical)).toEqual(found);
        const url = new URL(
          `https://${found.registry}/v2/${found.repository}/manifests/${found.tag ?? found.digest}`,
        );
        expect(url.pathname).toBe(`/v2/${found.repository}/manifests/${found.tag ?? found.digest}`);
        expect(url.username).toBe('');
      }),
      { numRuns: 2000 },
    );
  });
});
