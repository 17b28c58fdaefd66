/** How registries are reached: flags and the environment, else `registry` of cimlet.yaml. */

import { resolve } from 'node:path';
import type { RegistryOptions } from '../images/registry/registries.ts';
import { parseSize } from '../manifests/quantities.ts';
import type { RegistryConfig } from '../manifests/types.gen.ts';
import type { CliContext } from './context.ts';
import type { GlobalOptions } from './options.ts';

export type RegistrySettings = Omit<RegistryOptions, 'store' | 'mayWrite'>;

/** `registry` of a cimlet.yaml, and the folder that its paths are relative to. */
export interface ConfiguredRegistry {
  registry: RegistryConfig;
  baseDirectory: string;
}

export function registrySettings({ env }: CliContext, options: GlobalOptions): RegistrySettings {
  const { registryConfig, configuredRegistry: configured, concurrency } = options;
  const connectionsInAll = concurrency?.fetching;
  if (configured === undefined) return { env, configPath: registryConfig, limits: { connectionsInAll } };
  const { configPath, credentials = [], limits = {} } = configured.registry;
  const absolute = (path: string | undefined) =>
    path === undefined ? undefined : resolve(configured.baseDirectory, path);
  const { connections, retries, bytesPerSecond, layerSize } = limits;
  return {
    env,
    configPath: registryConfig ?? absolute(configPath),
    credentials: credentials.map(({ dockerConfig, passwordFile, ...rule }) => ({
      ...rule,
      dockerConfig: absolute(dockerConfig),
      passwordFile: absolute(passwordFile),
    })),
    limits: {
      connections,
      connectionsInAll,
      retries,
      bytesPerSecond: bytesPerSecond === undefined ? undefined : parseSize(bytesPerSecond),
      layerBytes: layerSize === undefined ? undefined : parseSize(layerSize),
    },
  };
}
