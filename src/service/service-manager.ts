/** What `cimlet service` asks of the system's service manager: the agent, started with the system and again when it fails. */

export interface ServiceDefinition {
  name: string;
  /** What runs: absolute path of the program, then its arguments. */
  command: readonly [string, ...string[]];
  /** Of the agent, absolute. */
  root: string;
  /** How long the agent may take to stop, in milliseconds; then it is killed. */
  stopTimeoutMs: number;
}

export interface ServiceStatus {
  state: 'absent' | 'stopped' | 'running';
  /** A sentence without a full stop. */
  detail: string;
  /** While it has one. */
  processId?: number;
  /** Of the last run, once that ended. */
  exitCode?: number;
}

/** Every operation may be repeated. Throws `access-denied` without the privilege, `unavailable` where nothing manages services. */
export interface ServiceManager {
  /** What install would make, to be read by people. Touches nothing. Throws `failed-precondition` for what can't be said to it. */
  describe(service: ServiceDefinition): string;
  /** Installs and starts it; one that is there is replaced and started again. Says what it did, and what is left to do. */
  install(service: ServiceDefinition, signal: AbortSignal): Promise<string[]>;
  /** Stops and removes it. What the agent mounted stays. */
  uninstall(name: string, signal: AbortSignal): Promise<string[]>;
  status(name: string, signal: AbortSignal): Promise<ServiceStatus>;
}

/** This process as one that the service manager started, and stops. */
export interface ServiceProcess {
  /** Aborted when the manager tells it to stop. */
  readonly signal: AbortSignal;
  /** Told once, when it has started. */
  ready(): void;
  /** Told last. Anything but 0, unless it was told to stop, is a failure, after which it is started again. */
  end(exitCode: number): void;
}
