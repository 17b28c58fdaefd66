/**
 * What this build of Windows can do with layers, by its number and by what its DLLs have, and why not the rest. The build
 * rules are those of hcsshim's pkg/cimfs.
 */

import type { Privilege } from './advapi32.ts';
import type { DllState } from './dll.ts';
import { MERGE_HIVES } from './offreg.ts';
import type { WindowsApi } from './windows.ts';

export interface WindowsBuild {
  build: number;
  /** The update that is installed (UBR); 0 where the registry doesn't say. */
  revision: number;
}

export interface WindowsFacts extends WindowsBuild {
  dlls: readonly DllState[];
  privileges: Readonly<Record<Privilege, 'enabled' | 'disabled' | 'absent'>>;
}

export interface FeatureState {
  available: boolean;
  /** Why it isn't. */
  reason?: string;
  /** What would make it so. */
  hint?: string;
}

export type WindowsFeature =
  | 'forkedCim.write'
  | 'forkedCim.mount'
  | 'blockCim.write'
  | 'blockCim.mount'
  | 'mergedCim.write'
  | 'mergedCim.mount'
  | 'verifiedCim.write'
  | 'verifiedCim.mount'
  | 'scratch'
  | 'overlayFilter'
  | 'wcifs'
  | 'hives'
  | 'disks'
  | 'computeSystems'
  | 'vmAccess'
  | 'bindFilter';

export type WindowsFeatures = Readonly<Record<WindowsFeature, FeatureState>>;

const VERSION_KEY = 'SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion';
const PRIVILEGES: readonly Privilege[] = ['SeBackupPrivilege', 'SeRestorePrivilege', 'SeSecurityPrivilege'];

/** Reads the version and the token and loads every DLL; calls none of those that do something. */
export function probeWindows(api: WindowsApi): WindowsFacts {
  const states = PRIVILEGES.map((name) => [name, api.advapi32.privilegeState(name)] as const);
  return {
    ...windowsBuild(api),
    dlls: api.dlls.probe(),
    privileges: Object.fromEntries(states) as WindowsFacts['privileges'],
  };
}

export function windowsBuild({ ntdll, advapi32 }: Pick<WindowsApi, 'ntdll' | 'advapi32'>): WindowsBuild {
  return {
    build: ntdll.getVersion().build,
    revision: advapi32.machineDword(VERSION_KEY, 'UBR') ?? 0,
  };
}

/** `20348.2700` */
export function buildText({ build, revision }: WindowsBuild): string {
  return `${build}.${revision}`;
}

interface BuildRule {
  what: string;
  allows(facts: WindowsFacts): boolean;
  needs: string;
}

/** Windows Server 2022, which got CimFS by an update. */
const SERVER_2022 = { build: 20348, revision: 2031 };

const CIMFS: BuildRule = {
  what: 'CimFS needs',
  allows: ({ build, revision }) =>
    build >= 26100 || (build === SERVER_2022.build && revision >= SERVER_2022.revision),
  needs: 'build 20348 with revision 2031 or later, or build 26100 or later',
};
const BLOCK: BuildRule = {
  what: 'block CIMs need',
  allows: ({ build }) => build >= 27766,
  needs: 'build 27766 or later',
};
const VERIFIED: BuildRule = {
  what: 'verified CIMs need',
  allows: ({ build }) => build >= 27800,
  needs: 'build 27800 or later',
};

const WRITE = [
  'CimCloseImage',
  'CimCommitImage',
  'CimCreateFile',
  'CimCloseStream',
  'CimWriteStream',
  'CimCreateHardLink',
  'CimCreateAlternateStream',
];
const WRITE_FORKED = [...WRITE, 'CimCreateImage', 'CimDeletePath'];
const WRITE_BLOCK = [...WRITE, 'CimCreateImage2', 'CimTombstoneFile', 'CimCreateMergeLink'];
const WRITE_MERGED = [...WRITE_BLOCK, 'CimAddFsToMergedImage2'];
const WRITE_VERIFIED = [...WRITE_MERGED, 'CimSealImage', 'CimGetVerificationInformation'];
const MOUNT = ['CimMountImage', 'CimDismountImage'];
const MOUNT_VERIFIED = ['CimDismountImage', 'CimMountVerifiedImage', 'CimMergeMountVerifiedImage'];
const SCRATCH = ['ActivateLayer', 'DeactivateLayer', 'GetLayerMountPath', 'NameToGuid', 'ExpandSandboxSize'];
const WCIFS = [
  ...SCRATCH,
  'PrepareLayer',
  'UnprepareLayer',
  'CreateSandboxLayer',
  'DestroyLayer',
  'ImportLayer',
  'ExportLayer',
  'ProcessBaseImage',
  'ProcessUtilityImage',
];

const CONTAINERS_HINT = 'enable the Containers feature of Windows';
const OFFREG_HINT = 'offreg.dll comes with Windows Server; cimlet merges hives itself without it';

/** Every feature, with the reason of each that isn't there. */
export function windowsFeatures(facts: WindowsFacts): WindowsFeatures {
  return {
    'forkedCim.write': byBuild(facts, CIMFS, () => writer(facts, WRITE_FORKED)),
    'forkedCim.mount': byBuild(facts, CIMFS, () => has(facts, 'cimfs.dll', MOUNT)),
    'blockCim.write': writtenBlock(facts, BLOCK, WRITE_BLOCK),
    'blockCim.mount': byBuild(facts, BLOCK, () => has(facts, 'cimfs.dll', MOUNT)),
    'mergedCim.write': writtenBlock(facts, BLOCK, WRITE_MERGED),
    'mergedCim.mount': byBuild(facts, BLOCK, () =>
      has(facts, 'cimfs.dll', ['CimMergeMountImage', 'CimDismountImage']),
    ),
    'verifiedCim.write': writtenBlock(facts, VERIFIED, WRITE_VERIFIED),
    'verifiedCim.mount': byBuild(facts, VERIFIED, () => has(facts, 'cimfs.dll', MOUNT_VERIFIED)),
    scratch: has(facts, 'vmcompute.dll', SCRATCH, CONTAINERS_HINT),
    overlayFilter: has(
      facts,
      'computestorage.dll',
      ['HcsAttachOverlayFilter', 'HcsDetachOverlayFilter'],
      CONTAINERS_HINT,
    ),
    wcifs: has(facts, 'vmcompute.dll', WCIFS, CONTAINERS_HINT),
    hives: has(facts, 'offreg.dll', MERGE_HIVES, OFFREG_HINT),
    disks: has(facts, 'virtdisk.dll'),
    computeSystems: has(facts, 'computecore.dll', undefined, CONTAINERS_HINT),
    vmAccess: has(facts, 'vmcompute.dll', ['GrantVmAccess', 'NameToGuid'], CONTAINERS_HINT),
    bindFilter: has(facts, 'bindfltapi.dll'),
  };
}

function byBuild(facts: WindowsFacts, rule: BuildRule, then: () => FeatureState): FeatureState {
  if (rule.allows(facts)) return then();
  return {
    available: false,
    reason: `${rule.what} ${rule.needs}; this is ${buildText(facts)}`,
    hint: 'update Windows',
  };
}

/** cimwriter.dll writes them on any build. */
function writtenBlock(facts: WindowsFacts, rule: BuildRule, functions: readonly string[]): FeatureState {
  if (isUsable(find(facts, 'cimwriter.dll'))) return has(facts, 'cimwriter.dll', functions);
  const state = byBuild(facts, rule, () => has(facts, 'cimfs.dll', functions));
  if (state.available) return state;
  return { ...state, hint: `${state.hint ?? 'update Windows'}, or put cimwriter.dll beside node.exe` };
}

/** Forked CIMs too are written by cimwriter.dll where it is. */
function writer(facts: WindowsFacts, functions: readonly string[]): FeatureState {
  const file = isUsable(find(facts, 'cimwriter.dll')) ? 'cimwriter.dll' : 'cimfs.dll';
  return has(facts, file, functions);
}

/** Whether a DLL has some functions; all that cimlet knows unless told which. */
function has(
  facts: WindowsFacts,
  file: string,
  functions?: readonly string[],
  hint = 'update Windows',
): FeatureState {
  const state = find(facts, file);
  const no = (reason: string): FeatureState => ({ available: false, reason, hint });
  if (state?.path === undefined) return no(`${file} is not available on this build (${buildText(facts)})`);
  if (state.problem !== undefined) return no(`${state.path} can't be loaded: ${state.problem}`);
  const lacking = state.missing.filter((name) => functions?.includes(name) ?? true);
  if (lacking.length === 0) return { available: true };
  return no(`${file} of this build (${buildText(facts)}) has no ${lacking.join(', ')}`);
}

function find({ dlls }: WindowsFacts, file: string): DllState | undefined {
  return dlls.find((state) => state.file === file);
}

function isUsable(state: DllState | undefined): boolean {
  return state?.path !== undefined && state.problem === undefined;
}
