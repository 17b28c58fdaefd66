/** cimlet.yaml for commands that follow no sources: which root, host and registries are meant, and the host's labels. */

import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import type { HostState } from '../hosts/host.ts';
import { architectureName } from '../images/platform.ts';
import { type LoadedConfig, loadAgentConfig } from '../manifests/agent-config.ts';
import type { HostLabels } from '../reconciler/host-labels.ts';
import type { CliContext } from './context.ts';
import type { GlobalOptions } from './options.ts';

export function configOption(): Option {
  return new Option('--config <file>', 'configuration, cimlet.yaml').env('CIMLET_CONFIG');
}

/** The options with what the configuration says, if one is named. A flag or variable that was given wins over it. */
export async function withConfig<Options extends GlobalOptions & { config?: string }>(
  given: Options,
  command: Command,
  context: CliContext,
): Promise<Options & { labels: HostLabels }> {
  const loaded = given.config === undefined ? undefined : await loadAgentConfig(given.config);
  return applyConfig(given, loaded, command, context);
}

export function applyConfig<Options extends GlobalOptions>(
  given: Options,
  loaded: Pick<LoadedConfig, 'config' | 'baseDirectory'> | undefined,
  command: Command,
  { services }: CliContext,
): Options & { labels: HostLabels } {
  const { root, host, registry, concurrency, labels } = loaded?.config ?? {};
  const baseDirectory = loaded?.baseDirectory ?? '';
  const isGiven = (name: string) => command.getOptionValueSourceWithGlobals(name) !== 'default';
  return {
    ...given,
    root: isGiven('root') || root === undefined ? given.root : resolve(baseDirectory, root),
    host: isGiven('host') ? given.host : (host ?? given.host),
    configuredRegistry: registry === undefined ? undefined : { registry, baseDirectory },
    concurrency,
    labels: { ...labels, ...services.hostLabels },
  };
}

/** The labels of the host that was observed, as far as it is known: its own name isn't. */
export function labelsOfObserved(labels: HostLabels, { host }: HostState): HostLabels {
  const { 'cimlet.dev/hostname': _hostname, ...others } = labels;
  return {
    ...others,
    'cimlet.dev/os': host.kind === 'windows' ? 'windows' : 'linux',
    'cimlet.dev/arch': architectureName(host.architecture),
  };
}
