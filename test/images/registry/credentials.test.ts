/** Whose credentials are for which host: rules, docker's config.json and credential helpers. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type Credentials, findCredentials } from '../../../src/images/registry/credentials.ts';
import { makeTemporaryDirectory } from '../../support/stored-blob.ts';
import { everythingSaid } from './registry-fixture.ts';

const signal = new AbortController().signal;

it.each(['docker.io', 'index.docker.io', 'registry-1.docker.io'])(
  'a rule for %s is one for Docker Hub',
  async (registry) => {
    const settings = {
      rules: [{ registry, username: 'u', passwordEnv: 'WORD' }],
      defaultDockerConfig: undefined,
      env: { WORD: 'p' },
    };
    expect(await findCredentials('registry-1.docker.io', settings, signal)).toMatchObject({ password: 'p' });
    expect(await findCredentials('quay.io', settings, signal)).toBeUndefined();
  },
);

describe("docker's configuration", () => {
  function configure(config: unknown): {
    file: string;
    find: (host: string) => Promise<Credentials | undefined>;
  } {
    const directory = makeTemporaryDirectory();
    const bin = join(directory, 'bin');
    mkdirSync(bin);
    const helper = (name: string, script: string) =>
      writeFileSync(join(bin, `docker-credential-${name}`), `#!/bin/sh\nread server\n${script}\n`, {
        mode: 0o755,
      });
    helper('told', `echo "{\\"Username\\":\\"u\\",\\"Secret\\":\\"for $server, $1\\"}"`);
    helper('token', `echo '{"Username":"<token>","Secret":"refresh"}'`);
    helper('nothing', "echo 'credentials not found in native keychain'; exit 1");
    helper('broken', 'echo top-secret-7; exit 3');
    helper('nonsense', 'echo top-secret-7');
    const file = join(directory, 'config.json');
    writeFileSync(file, typeof config === 'string' ? config : JSON.stringify(config));
    const settings = {
      rules: [],
      defaultDockerConfig: file,
      env: { PATH: `${bin}:${process.env.PATH}` },
    };
    return { file, find: (host) => findCredentials(host, settings, signal) };
  }
  const base64 = (plain: string) => Buffer.from(plain).toString('base64');
  const password = (username: string, word: string) => ({ kind: 'password', username, password: word });

  it('is read by host, however it is spelled there', async () => {
    const { find } = configure({
      auths: {
        'r.example:5000': { auth: base64('u:p:with:colons') },
        'https://v1.example/v1/': { username: 'n', password: 'w' },
        'https://index.docker.io/v1/': { auth: base64('hub:word') },
        'id.example': { auth: base64('u:'), identitytoken: 'refresh' },
        'reg.example': { registrytoken: 'whole' },
        'empty.example': {},
      },
    });
    expect(await find('r.example:5000')).toEqual(password('u', 'p:with:colons'));
    expect(await find('r.example')).toBeUndefined();
    expect(await find('v1.example')).toEqual(password('n', 'w'));
    expect(await find('registry-1.docker.io')).toEqual(password('hub', 'word'));
    expect(await find('id.example')).toEqual({ kind: 'identityToken', token: 'refresh' });
    expect(await find('reg.example')).toEqual({ kind: 'registryToken', token: 'whole' });
    expect(await find('empty.example')).toBeUndefined();
  });

  it('names helpers, which are given the host on standard input', async () => {
    const { find } = configure({
      credHelpers: {
        'r.example': 'told',
        'id.example': 'token',
        'docker.io': 'told',
        'none.example': 'nothing',
      },
      credsStore: 'nothing',
      auths: { 'file.example': { auth: base64('u:p') }, 'none.example': { auth: base64('a:b') } },
    });
    expect(await find('r.example')).toEqual(password('u', 'for r.example, get'));
    expect(await find('registry-1.docker.io')).toEqual(password('u', 'for https://index.docker.io/v1/, get'));
    expect(await find('id.example')).toEqual({ kind: 'identityToken', token: 'refresh' });
    expect(await find('file.example')).toEqual(password('u', 'p'));
    expect(await find('none.example')).toEqual(password('a', 'b'));
    expect(await find('unknown.example')).toBeUndefined();
  });

  it('that is no use is an error that tells no secret', async () => {
    const cases: [unknown, string][] = [
      ['{"auths": top-secret-7', 'failed-precondition'],
      ['[]7', 'failed-precondition'],
      [{ auths: { 'r.example': { auth: base64('top-secret-7') } } }, 'failed-precondition'],
      [{ credsStore: 'broken' }, 'access-denied'],
      [{ credsStore: 'nonsense' }, 'failed-precondition'],
      [{ credsStore: 'not-installed' }, 'not-found'],
      [{ credsStore: '../../bin/sh' }, 'failed-precondition'],
    ];
    for (const [config, code] of cases) {
      const error = await configure(config)
        .find('r.example')
        .catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ name: 'CimletError', code });
      expect(everythingSaid(error)).not.toContain('top-secret-7');
      expect(everythingSaid(error)).not.toContain(base64('top-secret-7'));
    }
  });
});
