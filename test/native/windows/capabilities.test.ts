import { describe, expect, it } from 'vitest';
import {
  type WindowsFacts,
  type WindowsFeature,
  windowsFeatures,
} from '../../../src/native/windows/capabilities.ts';
import { machine } from './machine.ts';

const CIM_FEATURES: readonly WindowsFeature[] = [
  'forkedCim.write',
  'forkedCim.mount',
  'blockCim.write',
  'blockCim.mount',
  'mergedCim.write',
  'mergedCim.mount',
  'verifiedCim.write',
  'verifiedCim.mount',
];

function available(facts: WindowsFacts): WindowsFeature[] {
  const features = windowsFeatures(facts);
  return CIM_FEATURES.filter((name) => features[name].available);
}

const FORKED = CIM_FEATURES.slice(0, 2);
const MERGED = CIM_FEATURES.slice(0, 6);

describe('what a build can do', () => {
  it.each([
    { build: 17763, revision: 9999, can: [] },
    { build: 20348, revision: 2030, can: [] },
    { build: 20348, revision: 2031, can: FORKED },
    { build: 25398, revision: 5000, can: [] },
    { build: 26099, revision: 0, can: [] },
    { build: 26100, revision: 0, can: FORKED },
    { build: 27765, revision: 1, can: FORKED },
    { build: 27766, revision: 0, can: MERGED },
    { build: 27799, revision: 0, can: MERGED },
    { build: 27800, revision: 0, can: CIM_FEATURES },
  ])('$build.$revision', ({ build, revision, can }) => {
    expect(available(machine(build, revision))).toEqual(can);
  });

  it('writes block CIMs of every kind on any build that has cimwriter.dll, and mounts none for it', () => {
    expect(available(machine(17763, 1, []))).toEqual([
      'blockCim.write',
      'mergedCim.write',
      'verifiedCim.write',
    ]);
  });

  it('says why not, and what to do', () => {
    const old = windowsFeatures(machine(20348, 2000));
    expect(old['forkedCim.mount']).toEqual({
      available: false,
      reason:
        'CimFS needs build 20348 with revision 2031 or later, or build 26100 or later; this is 20348.2000',
      hint: 'update Windows',
    });
    expect(old['verifiedCim.write'].hint).toBe('update Windows, or put cimwriter.dll beside node.exe');
    const bare = windowsFeatures(machine(27800, 0, ['cimfs.dll', 'cimwriter.dll', 'vmcompute.dll']));
    expect(bare['blockCim.mount'].reason).toBe('cimfs.dll is not available on this build (27800.0)');
    expect(bare.wcifs.hint).toBe('enable the Containers feature of Windows');
  });

  it('names functions that a DLL lacks, where they are needed', () => {
    const facts = machine(27800, 0);
    const dlls = facts.dlls.map((dll) =>
      dll.file === 'cimfs.dll' ? { ...dll, missing: ['CimMergeMountImage', 'CimSealImage'] } : dll,
    );
    const features = windowsFeatures({ ...facts, dlls });
    expect(features['mergedCim.mount'].reason).toBe(
      'cimfs.dll of this build (27800.0) has no CimMergeMountImage',
    );
    expect(features['verifiedCim.write'].reason).toContain('has no CimSealImage');
    expect(features['verifiedCim.mount'].available).toBe(true);
  });

  it('says what keeps a DLL from being loaded', () => {
    const facts = machine(27800, 0);
    const dlls = facts.dlls.map((dll) => (dll.file === 'cimfs.dll' ? { ...dll, problem: 'bad image' } : dll));
    expect(windowsFeatures({ ...facts, dlls })['forkedCim.mount'].reason).toBe(
      "C:\\Windows\\System32\\cimfs.dll can't be loaded: bad image",
    );
  });
});
