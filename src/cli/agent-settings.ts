/**
 * What cimlet.yaml says of the agent's surroundings, as the agent and its server take it. Secrets are read anew each
 * time they are used, and once before anything is done, so that a missing one is said at the start.
 */

import type { Receiver } from '../agent/notifications/notifier.ts';
import { CimletError } from '../errors.ts';
import type { LoadedConfig } from '../manifests/agent-config.ts';
import type { FieldPath } from '../manifests/field-path.ts';
import { readSecret, type Secret, type SecretPlace } from '../manifests/secrets.ts';
import type { Hook } from '../server/hooks.ts';
import type { ServerOptions } from '../server/server.ts';

/** `file` is undefined when it is made up from flags. */
export type Configuration = Omit<LoadedConfig, 'file'> & { file: string | undefined };

/** Throws, with the place in cimlet.yaml, when the token can't be read. */
export async function openListener(configuration: Configuration): Promise<ServerOptions['tcp']> {
  const { listen } = configuration.config;
  if (listen === undefined) return undefined;
  const { address, tokenFile, tokenVariable } = listen;
  const [, host = '127.0.0.1', port] = /^(?:(.+):)?(\d+)$/.exec(address) ?? [];
  const field = ['listen', tokenFile === undefined ? 'tokenVariable' : 'tokenFile'];
  const place = { file: tokenFile, variable: tokenVariable };
  const token = await openSecret(configuration, field, 'the token of the API', place);
  return { host: host.replace(/^\[(.*)\]$/, '$1'), port: Number(port), token };
}

/** By source. Throws, with the place in cimlet.yaml, when a secret can't be read. */
export async function openHooks(configuration: Configuration): Promise<Map<string, Hook>> {
  const hooks = new Map<string, Hook>();
  for (const [index, { name, git }] of (configuration.config.sources ?? []).entries()) {
    if (git?.webhook === undefined) continue;
    const { provider, secretFile } = git.webhook;
    const field = ['sources', index, 'git', 'webhook', 'secretFile'];
    const secret = await openSecret(configuration, field, `the webhook secret of source ${name}`, {
      file: secretFile,
    });
    hooks.set(name, { provider, secret, ref: git.ref });
  }
  return hooks;
}

/** Throws, with the place in cimlet.yaml, when an address or key can't be read. */
export async function openReceivers(configuration: Configuration): Promise<Receiver[]> {
  const receivers: Receiver[] = [];
  for (const [index, notification] of (configuration.config.notifications ?? []).entries()) {
    const { name, type = 'webhook', severity, kinds, names, reasons } = notification;
    const { url, urlFile, urlVariable, secretFile, secretVariable } = notification;
    const open = (field: keyof typeof notification, what: string, place: SecretPlace) =>
      openSecret(configuration, ['notifications', index, field], `${what} of receiver ${name}`, place);
    const urlField = urlFile === undefined ? 'urlVariable' : 'urlFile';
    const keyField = secretFile === undefined ? 'secretVariable' : 'secretFile';
    const isSigned = (secretFile ?? secretVariable) !== undefined;
    receivers.push({
      name,
      type,
      url:
        url === undefined
          ? await open(urlField, 'the address', { file: urlFile, variable: urlVariable })
          : async () => url,
      key: isSigned
        ? await open(keyField, 'the key', { file: secretFile, variable: secretVariable })
        : undefined,
      warningsOnly: severity === 'error',
      kinds,
      names,
      reasons,
    });
  }
  return receivers;
}

async function openSecret(
  { baseDirectory, locate }: Configuration,
  field: FieldPath,
  what: string,
  place: SecretPlace,
): Promise<Secret> {
  const read = () => readSecret(what, place, baseDirectory);
  try {
    await read();
  } catch (error) {
    if (!(error instanceof CimletError)) throw error;
    const { code, message, hint } = error;
    throw new CimletError(code, `${locate(field)}: ${message}`, { hint, cause: error });
  }
  return read;
}
