/** What a command is given: the terminal, and the library wired to a host by the composition root. */

import type { Command } from 'commander';
import type { Host } from '../hosts/host.ts';
import type { HostPlatform } from '../images/types.ts';
import type { HostLabels } from '../reconciler/host-labels.ts';
import type { ServiceManager, ServiceProcess } from '../service/service-manager.ts';
import type { HostChoice } from './options.ts';
import type { Terminal } from './terminal.ts';

export interface CliContext {
  readonly terminal: Terminal;
  readonly version: string;
  readonly services: Services;
  /** CIMLET_DEBUG=1: errors are printed with their stack and causes. */
  readonly debug: boolean;
  readonly env: NodeJS.ProcessEnv;
  /** What the process will exit with; a command sets it when it is not 0. */
  exitCode: number;
}

/** What only the composition root knows how to make. */
export interface Services {
  /** Where state and layers are kept when nobody says otherwise. */
  readonly defaultRoot: string;
  /** What images are for on this machine. */
  readonly platform: HostPlatform;
  /** Labels that every host has: its system, architecture and name. */
  readonly hostLabels: HostLabels;
  /** Loaded by the commands that look at one only. Throws `unsupported-host` when this build has no such host. */
  openHost(choice: HostChoice, root: string): Promise<Host>;
  /** Where the agent of a root listens: a unix socket, or a named pipe. */
  agentAddress(root: string): string;
  /** Absent where cimlet knows no service manager. */
  readonly service?: ServiceSupport | undefined;
  /** Whether nobody reads standard output any more (`| head`). Absent where that can't be told before the next write. */
  isReaderGone?(): Promise<boolean>;
  /** To its end. Throws `cancelled` when aborted. */
  readStandardInput(signal?: AbortSignal): Promise<string>;
}

export interface ServiceSupport {
  /** How this program is started: absolute path of what runs it, then its own. */
  readonly program: readonly [string, ...string[]];
  open(): Promise<ServiceManager>;
  /** Makes this process the service of that name. Absent where services are programs like any other. */
  enter?(name: string): Promise<ServiceProcess>;
}

/** Each command file exports one of these: it declares the command's flags and runs it. */
export type AddCommand = (program: Command, context: CliContext) => void;
