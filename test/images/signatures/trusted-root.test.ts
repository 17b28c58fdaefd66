/** The trusted root of a Sigstore, as it is published: by TUF. */

import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, it, onTestFinished, vi } from 'vitest';
import { verifyBundle } from '../../../src/images/signatures/keyless.ts';
import { PublicRoot, type PublicRootOptions } from '../../../src/images/signatures/trusted-root.ts';
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

const signal = new AbortController().signal;
const newRoot = (options: Partial<PublicRootOptions> = {}) =>
  new PublicRoot({ directory: cache, mayWrite: true, offline: false, mirror, ...options });

it('is fetched, kept, and what its authority vouches for is believed', async () => {
  const bundle = Buffer.from(await sigstore.signStatement({ subject: 'x' }));
  const identities = [{ issuer: ISSUER, subject: SIGNER }];
  const trust = { keys: [], identities };
  const root = newRoot();
  const { signer } = await verifyBundle(bundle, trust, () => root.get(signal));
  expect(signer).toContain(SIGNER);
  expect(readdirSync(cache, { recursive: true }).map(String)).toContainEqual(
    expect.stringContaining('timestamp.json'),
  );
});

it('is asked for once, and then only when what is kept has expired', async () => {
  const clock = { now: Date.now() };
  const root = newRoot({ now: () => clock.now });
  await Promise.all([root.get(signal), root.get(signal), root.get(signal)]);
  expect(server.asked.filter((path) => path === '/timestamp.json')).toHaveLength(1);
  const before = server.asked.length;
  clock.now += 7_200_000;
  await root.get(signal);
  await newRoot().get(signal);
  await newRoot({ mayWrite: false }).get(signal);
  await newRoot({ offline: true }).get(signal);
  expect(server.asked).toHaveLength(before);
});

it('is what was kept while its server is gone, until it expires', async () => {
  await newRoot().get(signal);
  await server.close();
  const kept = await newRoot().get(signal);
  expect(kept.certificateAuthorities).toHaveLength(1);
  vi.useFakeTimers({ now: Date.now() + 2 * 86_400_000, toFake: ['Date'] });
  onTestFinished(() => {
    vi.useRealTimers();
  });
  await expect(newRoot().get(signal)).rejects.toMatchObject({ code: 'unavailable' });
});

it('is asked for again after it could not be had', async () => {
  const timestamp = server.files.get('/timestamp.json')!;
  server.files.delete('/timestamp.json');
  const root = newRoot();
  await expect(root.get(signal)).rejects.toMatchObject({ code: 'unavailable' });
  server.files.set('/timestamp.json', timestamp);
  await root.get(signal);
});

it('is not waited for by whoever gives up', async () => {
  const controller = new AbortController();
  const root = newRoot();
  const waiting = root.get(controller.signal);
  const other = root.get(signal);
  controller.abort();
  await expect(waiting).rejects.toMatchObject({ code: 'cancelled' });
  await other;
});

it('is loaded anew when it failed after whoever asked gave up', async () => {
  const root = newRoot({ offline: true });
  await expect(root.get(AbortSignal.abort())).rejects.toMatchObject({ code: 'cancelled' });
  await newRoot().get(signal);
  await root.get(signal);
});

it('is not the one that came with a package, as long as none was fetched', async () => {
  await newRoot().get(signal);
  const offline = newRoot({ offline: true });
  const [metadata] = readdirSync(cache, { recursive: true })
    .map(String)
    .filter((path) => path.endsWith('/targets.json'));
  rmSync(join(cache, metadata!));
  await expect(offline.get(signal)).rejects.toMatchObject({ code: 'unavailable' });
});

it('is not fetched offline', async () => {
  await expect(newRoot({ offline: true }).get(signal)).rejects.toMatchObject({
    code: 'unavailable',
    hint: expect.stringContaining('trustedRoot'),
  });
  expect(server.asked).toEqual([]);
});

it('leaves nothing behind where nothing may be kept', async () => {
  const temporary = mkdtempSync(join(directory, 'temporary-'));
  vi.stubEnv('TMPDIR', temporary);
  onTestFinished(() => {
    vi.unstubAllEnvs();
  });
  await newRoot({ mayWrite: false }).get(signal);
  expect(readdirSync(temporary)).toEqual([]);
  expect(readdirSync(cache)).toEqual([]);
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
  await expect(newRoot().get(signal)).rejects.toMatchObject({
    code: 'unavailable',
    message: expect.stringMatching(/^fetch the trusted root of Sigstore: ./),
    hint: expect.stringContaining('spec.verify.cosign.trustedRoot'),
  });
});
