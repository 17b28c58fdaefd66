/** computestorage.dll: the Host Compute Service's storage calls. https://learn.microsoft.com/virtualization/api/hcs/reference/apioverview#storage */

import { C, out, type Signature } from '../library.ts';
import { HANDLE, HRESULT, PWSTR } from './ctypes.ts';
import type { Dll, Dlls } from './dll.ts';
import { takeLocalString } from './system.ts';

const { str16 } = C;

const CALLS = {
  HcsImportLayer: [HRESULT, [str16, str16, str16]],
  HcsExportLayer: [HRESULT, [str16, str16, str16, str16]],
  HcsDestroyLayer: [HRESULT, [str16]],
  HcsSetupBaseOSLayer: [HRESULT, [str16, HANDLE, str16]],
  HcsSetupBaseOSVolume: [HRESULT, [str16, str16, str16]],
  HcsInitializeWritableLayer: [HRESULT, [str16, str16, str16]],
  HcsAttachLayerStorageFilter: [HRESULT, [str16, str16]],
  HcsDetachLayerStorageFilter: [HRESULT, [str16]],
  HcsAttachOverlayFilter: [HRESULT, [str16, str16]],
  HcsDetachOverlayFilter: [HRESULT, [str16, str16]],
  HcsFormatWritableLayerVhd: [HRESULT, [HANDLE]],
  HcsGetLayerVhdMountPath: [HRESULT, [HANDLE, out(PWSTR)]],
} satisfies Record<string, Signature>;

/** Parents of a layer, topmost first, and the filter that shows them as one. */
export interface LayerData {
  SchemaVersion: { Major: number; Minor: number };
  Layers?: readonly { Id: string; Path: string }[];
  FilterType?: 'WCIFS' | 'UnionFS';
}

/** https://learn.microsoft.com/virtualization/api/hcs/reference/hcssetupbaseoslayer */
export interface OsLayerOptions {
  Type: 'Container' | 'Vm';
  DisableCiCacheOptimization?: boolean;
  SkipUpdateBcdForBoot?: boolean;
}

/** Layer and volume paths carry no trailing backslash unless a volume GUID path ends in one. */
export class ComputeStorage {
  readonly dll: Dll<keyof typeof CALLS>;

  constructor(dlls: Dlls) {
    this.dll = dlls.open('computestorage.dll', CALLS);
  }

  /** Makes a read-only layer of the files in `source`. */
  async importLayer(layer: string, source: string, data: LayerData): Promise<void> {
    const args = [layer, source, JSON.stringify(data)];
    await this.dll.call(`import layer ${layer} from ${source}`, 'HcsImportLayer', ...args);
  }

  async exportLayer(
    layer: string,
    target: string,
    data: LayerData,
    options: { IsWritableLayer: boolean },
  ): Promise<void> {
    const args = [layer, target, JSON.stringify(data), JSON.stringify(options)];
    await this.dll.call(`export layer ${layer} to ${target}`, 'HcsExportLayer', ...args);
  }

  /** Deletes a layer's folder, which a plain recursive delete can't do safely. */
  async destroyLayer(layer: string): Promise<void> {
    await this.dll.call(`destroy layer ${layer}`, 'HcsDestroyLayer', layer);
  }

  /** `vhd`: the attached disk of a utility VM's layer; 0 for a container's. */
  async setupBaseOSLayer(layer: string, vhd: number, options: OsLayerOptions): Promise<void> {
    const args = [layer, vhd, JSON.stringify(options)];
    await this.dll.call(`set up base layer ${layer}`, 'HcsSetupBaseOSLayer', ...args);
  }

  async setupBaseOSVolume(layer: string, volume: string, options: OsLayerOptions): Promise<void> {
    const args = [layer, volume, JSON.stringify(options)];
    await this.dll.call(`set up base layer ${layer} on volume ${volume}`, 'HcsSetupBaseOSVolume', ...args);
  }

  async initializeWritableLayer(layer: string, data: LayerData): Promise<void> {
    const args = [layer, JSON.stringify(data), ''];
    await this.dll.call(`initialize writable layer ${layer}`, 'HcsInitializeWritableLayer', ...args);
  }

  async attachLayerStorageFilter(layer: string, data: LayerData): Promise<void> {
    const args = [layer, JSON.stringify(data)];
    await this.dll.call(`attach the layer filter to ${layer}`, 'HcsAttachLayerStorageFilter', ...args);
  }

  async detachLayerStorageFilter(layer: string): Promise<void> {
    await this.dll.call(`detach the layer filter from ${layer}`, 'HcsDetachLayerStorageFilter', layer);
  }

  /** Shows the layers of `data` under a scratch volume. */
  async attachOverlayFilter(volume: string, data: LayerData): Promise<void> {
    const args = [volume, JSON.stringify(data)];
    await this.dll.call(`attach the overlay filter to ${volume}`, 'HcsAttachOverlayFilter', ...args);
  }

  async detachOverlayFilter(volume: string, data: LayerData): Promise<void> {
    const args = [volume, JSON.stringify(data)];
    await this.dll.call(`detach the overlay filter from ${volume}`, 'HcsDetachOverlayFilter', ...args);
  }

  /** Partitions and formats a disk as a writable layer's. */
  async formatWritableLayerVhd(vhd: number): Promise<void> {
    await this.dll.call('format a writable layer disk', 'HcsFormatWritableLayerVhd', vhd);
  }

  /**
   * The volume path of an attached writable layer disk. Its string is given back with LocalFree, as the reference says;
   * hcsshim takes CoTaskMemFree.
   * https://learn.microsoft.com/virtualization/api/hcs/reference/hcsgetlayervhdmountpath
   */
  async getLayerVhdMountPath(vhd: number): Promise<string> {
    const path: [bigint | null] = [null];
    await this.dll.call("find a writable layer disk's volume", 'HcsGetLayerVhdMountPath', vhd, path);
    return takeLocalString(path[0]);
  }
}
