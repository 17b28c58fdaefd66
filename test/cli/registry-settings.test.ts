/** `registry` of cimlet.yaml, as the program reads it. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { CliContext } from '../../src/cli/context.ts';
import type { GlobalOptions } from '../../src/cli/options.ts';
import { registrySettings } from '../../src/cli/registry-settings.ts';
import { loadAgentConfig } from '../../src/manifests/agent-config.ts';
import { makeTemporaryDirectory } from '../support/stored-blob.ts';

const context = { env: { HOME: '/home/me' } } as unknown as CliContext;
const flags = { root: '/r', host: 'auto', output: 'text', color: false } as GlobalOptions;

it('is relative to the file, and a flag wins', async () => {
  const directory = makeTemporaryDirectory();
  writeFileSync(
    join(directory, 'cimlet.yaml'),
    `registry:
  configPath: certs.d
  credentials:
    - { registry: r.example, username: me, passwordFile: secrets/r }
    - { registry: s.example, username: me, passwordEnv: S_TOKEN }
    - { dockerConfig: /etc/docker.json }
    - { helper: pass }
  limits: { connections: 2, bytesPerSecond: 10Mi, layerSize: 5Gi, retries: 1 }
`,
  );
  const { config, baseDirectory } = await loadAgentConfig(join(directory, 'cimlet.yaml'));
  const configuredRegistry = { registry: config.registry!, baseDirectory };
  const settings = registrySettings(context, { ...flags, configuredRegistry });
  expect(settings).toEqual({
    env: context.env,
    configPath: join(directory, 'certs.d'),
    credentials: [
      { registry: 'r.example', username: 'me', passwordFile: join(directory, 'secrets/r') },
      { registry: 's.example', username: 'me', passwordEnv: 'S_TOKEN' },
      { dockerConfig: '/etc/docker.json' },
      { helper: 'pass' },
    ],
    limits: { connections: 2, retries: 1, bytesPerSecond: 10 << 20, layerBytes: 5 * 2 ** 30 },
  });
  const flagged = registrySettings(context, { ...flags, registryConfig: '/flag', configuredRegistry });
  expect(flagged.configPath).toBe('/flag');
  expect(registrySettings(context, flags)).toEqual({ env: context.env, configPath: undefined, limits: {} });
  const limited = registrySettings(context, { ...flags, configuredRegistry, concurrency: { fetching: 3 } });
  expect(limited.limits).toMatchObject({ connections: 2, connectionsInAll: 3 });
});
