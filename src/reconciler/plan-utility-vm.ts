/** What a Mount in a utility VM needs of its chain and of the host. */

import type { MountRequest } from '../hosts/host.ts';
import { findIncapacity } from './derive-chain.ts';
import type { DesiredChain } from './desired.ts';
import type { Situation } from './situation.ts';
import type { Blocked } from './types.ts';

/** Why it can't be attached, or undefined. Whether the VM runs is known when it is. */
export function findVmObstacle(
  { utilityVM, format, access, path }: MountRequest,
  chain: DesiredChain,
  { observed, host }: Situation,
): Pick<Blocked, 'code' | 'message' | 'hint'> | undefined {
  if (utilityVM === undefined)
    return format === 'LCOW' && host === 'windows'
      ? {
          code: 'unsupported-host',
          message: 'Windows shows Linux layers in utility VMs only',
          hint: 'name one in spec.isolation.utilityVM',
        }
      : undefined;
  const incapacity = findIncapacity('utilityVM', 'attach to utility VMs', observed?.capabilities);
  if (incapacity !== undefined) return incapacity;
  if (path.startsWith('/') !== (format === 'LCOW')) {
    const guest = format === 'LCOW' ? 'Linux' : 'Windows';
    return { code: 'invalid-manifest', message: `spec.path ${path} is no path of a ${guest} guest` };
  }
  if (format === 'LCOW') return undefined;
  if (format === 'ForkedCIM')
    return {
      code: 'unsupported-host',
      message: 'spec.isolation.utilityVM: Windows shows forked CIMs in no utility VM',
      hint: 'use format: BlockCIM, with vhdFooter: true',
    };
  if (format === 'BlockCIM' && !chain.vhdFooter)
    return {
      code: 'invalid-manifest',
      message: 'spec.isolation.utilityVM: block CIMs are attached as disks, and these have no VHD footer',
      hint: 'name a LayerChain with vhdFooter: true in spec.chain',
    };
  if (access === 'ReadOnly')
    return {
      code: 'invalid-manifest',
      message:
        "spec.access: a Windows guest shows layers under a scratch only, where they can't be made read-only",
      hint: 'use access: ReadWrite',
    };
  return undefined;
}
