/** This process as a service of Windows. */

import { Dlls } from '../native/windows/dll.ts';
import { ServiceDispatcher, type StatusHandle } from '../native/windows/service-dispatcher.ts';
import { ServiceState } from '../native/windows/services.ts';
import { endProcess } from '../native/windows/system.ts';
import type { ServiceProcess } from './service-manager.ts';

/** The manager is told so often that starting or stopping gets on, and may take a missing word for a hang after so long. */
const CHECKPOINT_MS = 3000;
const WAIT_HINT_MS = 30_000;

/**
 * Answers the service control manager, which wants that within 30 s of starting a process. Throws `failed-precondition` when
 * something else started this one. Once in a process.
 */
export async function enterWindowsService(name: string): Promise<ServiceProcess> {
  const dispatcher = new ServiceDispatcher(new Dlls());
  const stop = new AbortController();
  const { promise: started, resolve: onStart } = Promise.withResolvers<StatusHandle>();
  const { ended } = dispatcher.connect(name, { onStart, onStop: () => stop.abort() });
  const handle = await Promise.race([started, ended.then(() => started)]);
  // Node would wait for the dispatcher's thread when it exits: an agent that crashed would stay, and not be started again.
  process.once('exit', endProcess);
  return serviceProcess((status) => dispatcher.report(handle, status), stop.signal);
}

function serviceProcess(
  report: (status: Parameters<ServiceDispatcher['report']>[1]) => void,
  signal: AbortSignal,
): ServiceProcess {
  let checkpoints: NodeJS.Timeout | undefined;
  const pend = (state: typeof ServiceState.startPending | typeof ServiceState.stopPending) => {
    let checkpoint = 0;
    const tell = () => report({ state, checkpoint: ++checkpoint, waitHint: WAIT_HINT_MS });
    clearInterval(checkpoints);
    checkpoints = setInterval(tell, CHECKPOINT_MS).unref();
    tell();
  };
  const onStop = () => pend(ServiceState.stopPending);
  signal.addEventListener('abort', onStop, { once: true });
  pend(ServiceState.startPending);
  return {
    signal,
    ready: () => {
      clearInterval(checkpoints);
      report({ state: ServiceState.running });
    },
    end: (exitCode) => {
      clearInterval(checkpoints);
      signal.removeEventListener('abort', onStop);
      // Stopping that failed isn't failing: nobody wants it started again.
      report({ state: ServiceState.stopped, exitCode: signal.aborted ? 0 : exitCode });
    },
  };
}
