/**
 * What cimlet.yaml says of the agent's surroundings, as the agent and its server take it. Secrets are read anew each
 * time they are used, and once before anything is done, so that a missing one is said at the start.
 */

import { join, resolve } from 'node:path';
import type { FollowedSource } from '../agent/declared-sources.ts';
import type { Receiver } from '../agent/notifications/notifier.ts';
import { CimletError } from '../errors.ts';
import { type LoadedConfig, loadAgentConfig } from '../manifests/agent-config.ts';
import { type FieldPath, formatField } from '../manifests/field-path.ts';
import { readSecret, type Secret, type SecretPlace } from '../manifests/secrets.ts';
import { sourceIdOf } from '../reconciler/sources.ts';
import { suspensionNote } from '../reconciler/suspension.ts';
import type { Hook } from '../server/hooks.ts';
import type { ServerOptions } from '../server/server.ts';
import { createFolderSource } from '../sources/folder-source.ts';
import { createGitSource } from '../sources/git-source.ts';

export interface AgentSettings {
  tcp: ServerOptions['tcp'];
  hooks: Map<string, Hook>;
  receivers: Receiver[];
  /** Nothing is open of one before it is looked at; then whoever does closes it. */
  sources: FollowedSource[];
}

/** `file` is undefined when it is made up from flags. */
export type Configuration = Omit<LoadedConfig, 'file'> & { file: string | undefined };

export interface FollowOptions {
  config?: string;
  filename?: string;
}

/** What the options of `agent` name: a configuration, or a folder. */
export async function openConfiguration({ config, filename }: FollowOptions): Promise<Configuration> {
  if (config !== undefined) return loadAgentConfig(config);
  if (filename === undefined) {
    throw new CimletError('failed-precondition', 'nothing to follow', {
      hint: 'name a folder with -f, or a configuration with --config',
    });
  }
  const source = { name: 'manifests', folder: { path: resolve(filename) } };
  const locate = formatField;
  return { config: { sources: [source] }, file: undefined, baseDirectory: process.cwd(), locate };
}

/** Throws, with the place in cimlet.yaml, what keeps an agent from starting with them. Touches nothing. */
export async function openSettings(configuration: Configuration, root: string): Promise<AgentSettings> {
  const tcp = await openListener(configuration);
  const hooks = await openHooks(configuration);
  const receivers = await openReceivers(configuration);
  return { tcp, hooks, receivers, sources: openSources(configuration, root) };
}

/** Sources keep what is theirs in `<root>/sources/<name>`. What `-f` names is the source that it is for `apply -f`. */
function openSources({ config, file, baseDirectory }: Configuration, root: string): FollowedSource[] {
  return (config.sources ?? []).map(({ name, folder, git, interval, prune = true, suspend }) => {
    const options = { cacheDirectory: join(root, 'sources', name), baseDirectory };
    const common = { prune, suspended: suspensionNote(suspend) };
    if (folder !== undefined) {
      const id = file === undefined ? sourceIdOf([folder.path]) : name;
      return { source: createFolderSource({ name, folder, interval }, options), id, ...common };
    }
    if (git !== undefined)
      return { source: createGitSource({ name, git, interval }, options), id: name, ...common };
    throw new CimletError('invalid-manifest', `source ${name}: it has neither folder nor git`);
  });
}

async function openListener(configuration: Configuration): Promise<ServerOptions['tcp']> {
  const { listen } = configuration.config;
  if (listen === undefined) return undefined;
  const { address, tokenFile, tokenVariable } = listen;
  const [, host = '127.0.0.1', port] = /^(?:(.+):)?(\d+)$/.exec(address) ?? [];
  const field = ['listen', tokenFile === undefined ? 'tokenVariable' : 'tokenFile'];
  const place = { file: tokenFile, variable: tokenVariable };
  const token = await openSecret(configuration, field, 'the token of the API', place);
  return { host: host.replace(/^\[(.*)\]$/, '$1'), port: Number(port), token };
}

/** By source. */
async function openHooks(configuration: Configuration): Promise<Map<string, Hook>> {
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

async function openReceivers(configuration: Configuration): Promise<Receiver[]> {
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
