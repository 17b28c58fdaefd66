/** hosts.toml as containerd's documentation has it (docs/hosts.md). */

import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { findEndpoints } from '../../../src/images/registry/endpoints.ts';
import { hasTool, requireOrSkip } from '../../support/requirements.ts';
import { makeTemporaryDirectory } from '../../support/stored-blob.ts';

const canSign = requireOrSkip('openssl', hasTool('openssl'));

function configured(folder: string, files: Record<string, string>): string {
  const directory = makeTemporaryDirectory();
  mkdirSync(join(directory, folder));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, folder, name), text);
  return directory;
}

const basesOf = async (registry: string, directory?: string) =>
  (await findEndpoints(registry, directory)).map(({ base }) => base);

describe('where a registry is reached', () => {
  it('without configuration', async () => {
    expect(await basesOf('docker.io')).toEqual(['https://registry-1.docker.io/v2']);
    expect(await basesOf('r.example:5000', makeTemporaryDirectory())).toEqual(['https://r.example:5000/v2']);
  });

  it('not at all by a configuration that is not there', async () => {
    const directory = join(makeTemporaryDirectory(), 'certs.d');
    await expect(findEndpoints('r.example', directory)).rejects.toMatchObject({
      code: 'not-found',
      message: expect.stringContaining(`read registry configuration ${directory}: no such file`),
    });
  });

  it('mirrors first, in the order of the file, the registry last', async () => {
    const toml = `
server = "https://registry-1.docker.io"
[host."https://b.example"]
[host."http://a.example:5000/prefix/"]
  capabilities = ["pull"]
[host."c.example/v2"]
[host."https://d.example/odd"]
  override_path = true
  capabilities = ["resolve"]
  dial_timeout = "1m30s"
  [host."https://d.example/odd".header]
    x-team = ["one", "two"]
    X-Key = "k"
`;
    const found = await findEndpoints('docker.io', configured('docker.io', { 'hosts.toml': toml }));
    expect(found.map(({ base }) => base)).toEqual([
      'https://b.example/v2',
      'http://a.example:5000/prefix/v2',
      'https://c.example/v2',
      'https://d.example/odd',
      'https://registry-1.docker.io/v2',
    ]);
    expect(found.map(({ canPull, canResolve }) => [canPull, canResolve])).toEqual([
      [true, true],
      [true, false],
      [true, true],
      [false, true],
      [true, true],
    ]);
    expect(found.map(({ mirrorOf }) => mirrorOf)).toEqual([...Array(4).fill('docker.io'), undefined]);
    expect(found[3]?.headers).toEqual([
      ['x-team', 'one'],
      ['x-team', 'two'],
      ['x-key', 'k'],
    ]);
    expect(found[3]?.connectTimeoutMs).toBe(90_000);
  });

  it("by Docker Hub's own name", async () => {
    const directory = configured('docker.io', { 'hosts.toml': 'server = "https://docker.io"' });
    expect(await findEndpoints('docker.io', directory)).toMatchObject([
      { base: 'https://registry-1.docker.io/v2', mirrorOf: undefined },
    ]);
  });

  it('by folders named host, host_port_ or _default', async () => {
    const toml = { 'hosts.toml': 'server = "https://mirror.example"' };
    for (const folder of ['r.example_5000_', 'r.example:5000', '_default']) {
      expect(await basesOf('r.example:5000', configured(folder, toml))).toEqual([
        'https://mirror.example/v2',
      ]);
    }
    expect(await basesOf('other.example', configured('r.example', toml))).toEqual([
      'https://other.example/v2',
    ]);
  });

  describe.runIf(canSign)('with certificates', () => {
    const certificate = () => {
      const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=test'];
      const pem = execFileSync('openssl', ['req', '-x509', ...kind, '-keyout', '-', '-out', '-'], {
        stdio: ['ignore', 'pipe', 'pipe'],
      }).toString();
      const start = pem.indexOf('-----BEGIN CERTIFICATE-----');
      return { cert: pem.slice(start), key: pem.slice(0, start) };
    };
    const one = certificate();
    const other = certificate();
    const files = {
      'ca.pem': `The authority\n${one.cert}`,
      'one.pem': one.cert + one.key,
      'c.cert': other.cert,
      'c.key': other.key,
      'x.crt': one.cert,
    };

    it('of hosts.toml, or of a folder as docker has it', async () => {
      const toml = 'ca = ["ca.pem"]\nclient = ["one.pem", ["c.cert", "c.key"]]\nskip_verify = true\n';
      const directory = configured('r.example', { ...files, 'hosts.toml': toml });
      const [own] = await findEndpoints('r.example', directory);
      const both = { cert: files['one.pem'], key: files['one.pem'] };
      expect(own?.tls).toEqual({ skipVerify: true, ca: [files['ca.pem']], clients: [both, other] });
      const [plain] = await findEndpoints('r.example', configured('r.example', files));
      expect(plain?.tls).toEqual({ skipVerify: false, ca: [one.cert], clients: [other] });
    });

    it('whose key is in the same file, as containerd has it', async () => {
      const toml = 'client = [["one.pem", ""]]\n';
      const [own] = await findEndpoints(
        'r.example',
        configured('r.example', { ...files, 'hosts.toml': toml }),
      );
      expect(own?.tls.clients).toEqual([{ cert: files['one.pem'], key: files['one.pem'] }]);
    });

    it.each([
      ['ca = "bad.pem"', /bad\.pem is no certificate/],
      ['ca = "c.key"', /c\.key is no certificate/],
      ['client = "bad.pem"', /bad\.pem is no certificate/],
      ['client = "c.cert"', /c\.cert is no private key/],
      ['client = [["c.cert", "bad.pem"]]', /bad\.pem is no private key/],
      ['client = [["c.cert", "one.pem"]]', /one\.pem is not the key to .*c\.cert/],
      ['client = [["", "c.key"]]', /must name a certificate/],
    ])('%s is refused by the name of the file', async (toml, message) => {
      const bad = { 'bad.pem': '-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n' };
      const directory = configured('r.example', { ...files, ...bad, 'hosts.toml': toml });
      await expect(findEndpoints('r.example', directory)).rejects.toMatchObject({
        code: 'failed-precondition',
        message: expect.stringMatching(message),
      });
    });
  });

  it("takes containerd's capabilities, all of them", async () => {
    const toml = '[host."https://m.example"]\ncapabilities = ["pull", "Resolve", "push", "referrers"]\n';
    const [mirror] = await findEndpoints('r.example', configured('r.example', { 'hosts.toml': toml }));
    expect(mirror).toMatchObject({ canPull: true, canResolve: true, canPush: true });
  });

  it.each([
    ['server = ', /hosts\.toml:1:\d+: /],
    ['server = 5', /server must be a text/],
    ['capabilities = ["fly"]', /unknown capability `fly`/],
    ['host = 1', /host must be a table/],
    ['[host."https://u:p@m.example"]', /password in an address/],
    ['[host."https://"]', /no address/],
    ['dial_timeout = "soon"', /must be a duration/],
    ['ca = 3', /ca must be a text/],
    ['ca = "gone.pem"', /gone\.pem/],
    ['client = [["a", "b", "c"]]', /certificate and its key/],
  ])('%s is an error that says where', async (toml, message) => {
    const directory = configured('r.example', { 'hosts.toml': toml });
    await expect(findEndpoints('r.example', directory)).rejects.toMatchObject({
      name: 'CimletError',
      message: expect.stringMatching(message),
    });
  });
});
