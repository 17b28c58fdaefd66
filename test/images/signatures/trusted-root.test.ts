/** The trusted root of a Sigstore, as it is published: by TUF. */

import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, it, onTestFinished, vi } from 'vitest';
import { loadTrustedRoot, verifyBundle } from '../../../src/images/signatures/keyless.ts';
import { ISSUER, SIGNER, startSigstore, type TestSigstore } from './sigstore.ts';
import { startTufServer, type TufServer } from './tuf-server.ts';

let directory: string;
let sigstore: TestSigstore;
let server: TufServer;
let mirror: { url: string; rootFile: string };
let cache: string;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'cimlet-trusted-root-'));
  sigstore = await startSigstore();
});
beforeEach(async () => {
  server = await startTufServer({ name: 'trusted_root.json', content: sigstore.trustedRoot });
  const rootFile = join(directory, 'root.json');
  writeFileSync(rootFile, server.root);
  mirror = { url: server.url, rootFile };
  cache = mkdtempSync(join(directory, 'cache-'));
  return server.close;
});
afterAll(async () => {
  await sigstore.close();
  rmSync(directory, { recursive: true, force: true });
});

it('is fetched, kept, and what its authority vouches for is believed', async () => {
  const bundle = Buffer.from(await sigstore.signStatement({ subject: 'x' }));
  const identities = [{ issuer: ISSUER, subject: SIGNER }];
  const trust = { keys: [], identities };
  const { signer } = await verifyBundle(bundle, trust, () =>
    loadTrustedRoot(undefined, { cacheDirectory: cache, mirror }),
  );
  expect(signer).toContain(SIGNER);
  expect(readdirSync(cache, { recursive: true }).map(String)).toContainEqual(
    expect.stringContaining('timestamp.json'),
  );
});

it('leaves nothing behind where nothing may be kept', async () => {
  const temporary = mkdtempSync(join(directory, 'temporary-'));
  vi.stubEnv('TMPDIR', temporary);
  onTestFinished(() => {
    vi.unstubAllEnvs();
  });
  await loadTrustedRoot(undefined, { mirror });
  expect(readdirSync(temporary)).toEqual([]);
});

it.each([
  ['a target with other bytes', /^\/targets/, (text: string) => text.replace('2020', '2021')],
  [
    'targets that nobody signed',
    /^\/1\.targets/,
    (text: string) => text.replace(/"length":\d/, '"length":9'),
  ],
  ['a snapshot that is gone', /^\/1\.snapshot/, () => undefined],
  ['a timestamp that is nonsense', /^\/timestamp/, () => '{'],
])('is refused: %s', async (_what, path, spoil) => {
  for (const [name, content] of server.files) {
    if (!path.test(name)) continue;
    const spoilt = spoil(content);
    if (spoilt === undefined) server.files.delete(name);
    else server.files.set(name, spoilt);
  }
  await expect(loadTrustedRoot(undefined, { cacheDirectory: cache, mirror })).rejects.toMatchObject({
    code: 'unavailable',
    message: expect.stringMatching(/^fetch the trusted root of Sigstore: ./),
    hint: expect.stringContaining('spec.verify.cosign.trustedRoot'),
  });
});
