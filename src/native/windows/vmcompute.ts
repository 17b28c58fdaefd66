/**
 * vmcompute.dll: the layer calls that WCIFS layers and every scratch need. They have no public documentation; hcsshim's
 * internal/wclayer declares them. Layers are named by full paths without a trailing backslash.
 */

import { win32 } from 'node:path';
import { C, out, pointerTo, type Signature, struct } from '../library.ts';
import { GUID, HRESULT, PWSTR } from './ctypes.ts';
import type { Dll, Dlls } from './dll.ts';
import { type GuidValue, guidText } from './guid.ts';
import { takeTaskString } from './system.ts';

const { int32, intptr, uint32, uint64, str16, pointer } = C;

/** Which driver keeps layers; only the filter driver is left. */
export const DRIVER_INFO = struct('DRIVER_INFO', { Flavour: int32, HomeDir: str16 });

export const WC_LAYER_DESCRIPTOR = struct('WC_LAYER_DESCRIPTOR', {
  LayerId: GUID,
  Flags: uint32,
  Path: str16,
});

const INFO = pointerTo(DRIVER_INFO);
const DESCRIPTORS = pointerTo(WC_LAYER_DESCRIPTOR);

const CALLS = {
  ActivateLayer: [HRESULT, [INFO, str16]],
  DeactivateLayer: [HRESULT, [INFO, str16]],
  PrepareLayer: [HRESULT, [INFO, str16, DESCRIPTORS, uint32]],
  UnprepareLayer: [HRESULT, [INFO, str16]],
  CreateLayer: [HRESULT, [INFO, str16, str16]],
  CreateSandboxLayer: [HRESULT, [INFO, str16, intptr, DESCRIPTORS, uint32]],
  ExpandSandboxSize: [HRESULT, [INFO, str16, uint64]],
  DestroyLayer: [HRESULT, [INFO, str16]],
  ImportLayer: [HRESULT, [INFO, str16, str16, DESCRIPTORS, uint32]],
  ExportLayer: [HRESULT, [INFO, str16, str16, DESCRIPTORS, uint32]],
  GetLayerMountPath: [HRESULT, [INFO, str16, pointer, pointer]],
  LayerExists: [HRESULT, [INFO, str16, out(uint32)]],
  NameToGuid: [HRESULT, [str16, out(GUID)]],
  ProcessBaseImage: [HRESULT, [str16]],
  ProcessUtilityImage: [HRESULT, [str16]],
  GrantVmAccess: [HRESULT, [str16, str16]],
  GetBaseImages: [HRESULT, [out(PWSTR)]],
} satisfies Record<string, Signature>;

const FILTER_DRIVER = { Flavour: 1, HomeDir: '' };

/** What Windows calls sandbox is a scratch. Parents come topmost first. */
export class VmCompute {
  readonly dll: Dll<keyof typeof CALLS>;

  constructor(dlls: Dlls) {
    this.dll = dlls.open('vmcompute.dll', CALLS);
  }

  /** Attaches a scratch's disk. Win32 errors 21 and 1167 pass by themselves: try again. */
  async activateLayer(layer: string): Promise<void> {
    await this.dll.call(`activate layer ${layer}`, 'ActivateLayer', FILTER_DRIVER, layer);
  }

  async deactivateLayer(layer: string): Promise<void> {
    await this.dll.call(`deactivate layer ${layer}`, 'DeactivateLayer', FILTER_DRIVER, layer);
  }

  /** Shows the parents under an activated scratch. Fails now and then as `activateLayer` does. */
  async prepareLayer(layer: string, parents: readonly string[]): Promise<void> {
    const list = await this.#descriptors(parents);
    await this.dll.call(`prepare layer ${layer}`, 'PrepareLayer', FILTER_DRIVER, layer, list, list.length);
  }

  async unprepareLayer(layer: string): Promise<void> {
    await this.dll.call(`unprepare layer ${layer}`, 'UnprepareLayer', FILTER_DRIVER, layer);
  }

  /** `parent`: a path, or empty. */
  async createLayer(layer: string, parent: string): Promise<void> {
    await this.dll.call(`create layer ${layer}`, 'CreateLayer', FILTER_DRIVER, layer, parent);
  }

  async createSandboxLayer(layer: string, parents: readonly string[]): Promise<void> {
    const list = await this.#descriptors(parents);
    const args = [FILTER_DRIVER, layer, 0, list, list.length];
    await this.dll.call(`create scratch ${layer}`, 'CreateSandboxLayer', ...args);
  }

  /** Grows a scratch's disk to a size in bytes. A CIM scratch's volume has to be extended after it. */
  async expandSandboxSize(layer: string, size: bigint): Promise<void> {
    const args = [FILTER_DRIVER, layer, size];
    await this.dll.call(`expand scratch ${layer} to ${size} bytes`, 'ExpandSandboxSize', ...args);
  }

  /** Deletes a layer's folder. */
  async destroyLayer(layer: string): Promise<void> {
    await this.dll.call(`destroy layer ${layer}`, 'DestroyLayer', FILTER_DRIVER, layer);
  }

  /** Makes a layer of an unpacked one at `source`. Needs SeBackupPrivilege and SeRestorePrivilege. */
  async importLayer(layer: string, source: string, parents: readonly string[]): Promise<void> {
    const list = await this.#descriptors(parents);
    const args = [FILTER_DRIVER, layer, source, list, list.length];
    await this.dll.call(`import layer ${layer} from ${source}`, 'ImportLayer', ...args);
  }

  /** The reverse of `importLayer`, with the same privileges. */
  async exportLayer(layer: string, target: string, parents: readonly string[]): Promise<void> {
    const list = await this.#descriptors(parents);
    const args = [FILTER_DRIVER, layer, target, list, list.length];
    await this.dll.call(`export layer ${layer} to ${target}`, 'ExportLayer', ...args);
  }

  /** A volume path for an activated scratch, the layer's own folder for other layers; empty when there is none. */
  async getLayerMountPath(layer: string): Promise<string> {
    const operation = `ask where layer ${layer} is mounted`;
    const units = Buffer.alloc(8);
    await this.dll.call(operation, 'GetLayerMountPath', FILTER_DRIVER, layer, units, null);
    const buffer = Buffer.alloc(Number(units.readBigUInt64LE()) * 2);
    if (buffer.length === 0) return '';
    await this.dll.call(operation, 'GetLayerMountPath', FILTER_DRIVER, layer, units, buffer);
    return buffer.toString('utf16le').split('\0', 1)[0] ?? '';
  }

  async layerExists(layer: string): Promise<boolean> {
    const exists = [0];
    await this.dll.call(`look for layer ${layer}`, 'LayerExists', FILTER_DRIVER, layer, exists);
    return exists[0] !== 0;
  }

  /** The GUID that a layer's ID stands for. */
  async nameToGuid(name: string): Promise<string> {
    return guidText(await this.#nameToGuid(name));
  }

  /** Prepares an imported base layer for containers: its hives and boot files. */
  async processBaseImage(path: string): Promise<void> {
    await this.dll.call(`process base image ${path}`, 'ProcessBaseImage', path);
  }

  /** Prepares a base layer's UtilityVM folder. */
  async processUtilityImage(path: string): Promise<void> {
    await this.dll.call(`process utility VM image ${path}`, 'ProcessUtilityImage', path);
  }

  async grantVmAccess(vm: string, file: string): Promise<void> {
    await this.dll.call(`grant VM ${vm} access to ${file}`, 'GrantVmAccess', vm, file);
  }

  /** The base images that came with Windows, as JSON. */
  async getBaseImages(): Promise<string> {
    const images: [bigint | null] = [null];
    await this.dll.call('list base images', 'GetBaseImages', images);
    return takeTaskString(images[0]);
  }

  async #nameToGuid(name: string): Promise<GuidValue> {
    const guid = {} as GuidValue;
    await this.dll.call(`derive the GUID of layer ${name}`, 'NameToGuid', name, guid);
    return guid;
  }

  #descriptors(layers: readonly string[]): Promise<object[]> {
    return Promise.all(
      layers.map(async (path) => ({
        LayerId: await this.#nameToGuid(win32.basename(path)),
        Flags: 0,
        Path: path,
      })),
    );
  }
}
