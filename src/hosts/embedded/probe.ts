/** What the embedded host can do here, and why not. */

import { CimletError } from '../../errors.ts';
import { type MountFacts, probeMounting } from '../../native/linux/probe.ts';
import { capabilityTable } from '../capability.ts';
import type { Capabilities, CapabilityState } from '../host.ts';

export interface EmbeddedFeatures {
  capabilities: Capabilities;
  /** Views are mounted through loop devices. */
  loop: boolean;
  /** Loop devices may be tried when mounting from files is refused. */
  canLoop: boolean;
}

export interface ProbeOptions {
  /** For tests: mount through loop devices even where files would do. */
  forceLoop?: boolean | undefined;
  /** For tests: act as if the kernel couldn't mount views. */
  disableKernelView?: boolean | undefined;
}

const HINT_EXTRACT = 'use view: Extracted';

export async function probeFeatures(options: ProbeOptions): Promise<EmbeddedFeatures> {
  const facts = await mountFacts();
  const kernel = options.disableKernelView
    ? { available: false, reason: 'kernel views are switched off', hint: HINT_EXTRACT }
    : kernelView(facts);
  const canLoop = typeof facts !== 'string' && facts.loopDevices;
  const loop = typeof facts !== 'string' && (options.forceLoop === true || !facts.fileBacked);
  return {
    capabilities: capabilityTable(
      {
        'ForkedCIM.write': { available: true },
        'ForkedCIM.mount': { available: true },
        'BlockCIM.write': { available: true },
        'BlockCIM.mount': { available: true },
        'LCOW.write': { available: true },
        'LCOW.mount': disks(facts),
        merge: { available: true },
        seal: { available: true },
        export: { available: true },
        active: writable(facts, kernel),
        commit: { available: true },
        'view.Kernel': kernel,
        'view.Extracted': { available: true },
        utilityVM: { available: false, reason: 'utility VMs exist on Windows only' },
        'WCIFS.write': { available: false, reason: 'the WCIFS format exists on Windows only' },
        'WCIFS.mount': { available: false, reason: 'the WCIFS format exists on Windows only' },
      },
      'not supported yet by the embedded host',
    ),
    loop,
    canLoop,
  };
}

/** Linux layers are disks on loop devices, and an overlay of them. */
function disks(facts: MountFacts | string): CapabilityState {
  const no = (reason: string, hint?: string): CapabilityState => ({
    available: false,
    reason,
    ...(hint === undefined ? {} : { hint }),
  });
  if (typeof facts === 'string') return no(facts);
  const kernel = `kernel ${facts.kernelRelease}`;
  if (!facts.capSysAdmin) return no('mounting needs CAP_SYS_ADMIN', 'run as root');
  if (!facts.initialUserNamespace)
    return no('ext4 cannot be mounted in a user namespace', 'run outside of it as root');
  if (!facts.loopDevices)
    return no('Linux layers are mounted through loop devices, and there are none', 'load the loop module');
  if (facts.overlay === 'missing')
    return no(`${kernel} has no overlayfs`, 'load or build the overlay module');
  if (facts.mountApi !== 'available')
    return no(`${kernel} refuses the mount API (${facts.mountApi})`, 'use Linux 6.7 or newer');
  return { available: true };
}

/** Writable mounts are overlays of kernel views. */
function writable(facts: MountFacts | string, kernel: CapabilityState): CapabilityState {
  if (!kernel.available) return { available: false, reason: kernel.reason ?? 'there are no kernel views' };
  if (typeof facts === 'string' || facts.overlay !== 'missing') return { available: true };
  return {
    available: false,
    reason: `kernel ${facts.kernelRelease} has no overlayfs`,
    hint: 'load or build the overlay module',
  };
}

/** The facts, or why there are none (no libc to call). */
async function mountFacts(): Promise<MountFacts | string> {
  try {
    return await probeMounting();
  } catch (error) {
    if (error instanceof CimletError) return error.message;
    throw error;
  }
}

function kernelView(facts: MountFacts | string): CapabilityState {
  const no = (reason: string, hint: string): CapabilityState => ({
    available: false,
    reason,
    hint: `${hint}, or ${HINT_EXTRACT}`,
  });
  if (typeof facts === 'string') return no(facts, 'run on Linux');
  const kernel = `kernel ${facts.kernelRelease}`;
  if (facts.erofs === 'missing') return no(`${kernel} has no EROFS`, 'load or build the erofs module');
  if (!facts.capSysAdmin) return no('mounting needs CAP_SYS_ADMIN', 'run as root');
  if (!facts.initialUserNamespace)
    return no('EROFS cannot be mounted in a user namespace', 'run outside of it as root');
  if (facts.mountApi !== 'available')
    return no(
      `${kernel} refuses the mount API (${facts.mountApi})`,
      'allow fsopen, or use Linux 5.2 or newer',
    );
  if (facts.fileBacked) return { available: true };
  if (!facts.loopDevices)
    return no(
      `${kernel} mounts EROFS from block devices only and there are no loop devices`,
      'load the loop module',
    );
  return { available: true, reason: `through loop devices, since ${kernel} cannot mount EROFS from files` };
}
