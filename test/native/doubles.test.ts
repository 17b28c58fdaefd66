/** The contract doubles themselves, called from a Windows process: what they keep, serve, refuse, log and outlive. */

import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { openWindowsWorld, type WindowsWorld } from '../support/windows.ts';
import { canRunWindows } from '../support/windows-tools.ts';
import { type Step, startSteps, takeSteps } from './doubles/steps.ts';

const OK = '0x00000000';
const INVALID = '0x80070057';
const BAD_NAME = '0x8007007b';
const BAD_HANDLE = '0x80070006';
const CHECKSUM = '0x80070017';
const BUSY = '0x800700aa';
const IN_USE = '0x80070020';
const NO_PRIVILEGE = '0x80070522';
const VOLUME = '6d3e1f5c-0a4b-5c6d-8e7f-0123456789ab';
const SINGLE_FILE = 8;
const VERIFIED = 0x40;
const MOUNT_SINGLE_FILE = 0x20;

const hex = (text: string) => Buffer.from(text).toString('hex');

/** A file of an image, whole. */
function file(image: string, path: string, content: string, more: object = {}): Step[] {
  const size = Buffer.byteLength(content);
  return [
    ['cimfs', 'CimCreateFile', image, path, { ...more, size }, 's'],
    ...(size === 0 ? [] : ([['cimfs', 'CimWriteStream', 's', hex(content), size]] satisfies Step[])),
    ['cimfs', 'CimCloseStream', 's'],
  ];
}

function folder(image: string, path: string): Step[] {
  return [
    ['cimfs', 'CimCreateFile', image, path, { attributes: 0x10 }, 's'],
    ['cimfs', 'CimCloseStream', 's'],
  ];
}

function close(image: string): Step[] {
  return [
    ['cimfs', 'CimCommitImage', image],
    ['cimfs', 'CimCloseImage', image],
  ];
}

/** A single-file image `layer.cim` with one file `<name>.txt`. */
function blockImage(name: string, flags: number, more: readonly Step[] = []): Step[] {
  return [
    ['cimfs', 'CimCreateImage2', `C:\\cims\\${name}.bcim`, flags, null, 'layer.cim', 'b'],
    ...folder('b', 'Files'),
    ...file('b', `Files\\${name}.txt`, name),
    ...more,
    ...close('b'),
  ];
}

describe.runIf(canRunWindows())('the contract doubles', () => {
  let world: WindowsWorld;
  const results = async (steps: readonly Step[]) => (await takeSteps(world, steps)).map(([result]) => result);
  const failures = async (steps: readonly Step[]) => (await results(steps)).filter((result) => result !== OK);
  const volume = (guid = VOLUME) => join(world.drive, `../dosdevices/volume{${guid}}`);
  const shownFiles = async () => (await readdir(join(volume(), 'Files'))).sort();

  beforeAll(async () => {
    world = await openWindowsWorld();
    for (const name of ['cims', 'layers']) await mkdir(join(world.drive, name));
  });
  afterAll(() => world?.close());
  afterEach(async () => {
    for (const name of ['cims', 'doubles', 'layers'])
      await rm(join(world.drive, name), { recursive: true, force: true });
    for (const name of ['cims', 'doubles', 'layers']) await mkdir(join(world.drive, name));
    for (const name of await readdir(join(world.drive, '../dosdevices')))
      if (name.startsWith('volume')) await rm(join(world.drive, '../dosdevices', name), { recursive: true });
  });

  describe('of cimfs.dll', () => {
    it('serve a forked image, and one forked from it, until it is dismounted', async () => {
      const steps: Step[] = [
        ['cimfs', 'CimCreateImage', 'C:\\cims', null, 'base.cim', 'i'],
        ...folder('i', 'Files'),
        ...file('i', 'Files\\a.txt', 'below'),
        ...file('i', 'Files\\b.txt', 'b'),
        ...close('i'),
        ['cimfs', 'CimCreateImage', 'C:\\cims', 'base.cim', 'top.cim', 'j'],
        ...file('j', 'Files\\a.txt', 'above'),
        ['cimfs', 'CimDeletePath', 'j', 'Files\\b.txt'],
        ['cimfs', 'CimCreateHardLink', 'j', 'Files\\c.txt', 'Files\\a.txt'],
        ...close('j'),
        ['cimfs', 'CimMountImage', 'C:\\cims', 'top.cim', 0, VOLUME],
      ];
      expect(await failures(steps)).toEqual([]);
      expect(await shownFiles()).toEqual(['a.txt', 'c.txt']);
      expect(await readFile(join(volume(), 'Files/c.txt'), 'utf8')).toBe('above');
      const kinds = (await readdir(join(world.drive, 'cims'))).map((name) => name.replace(/_.*/, ''));
      expect(kinds.sort()).toEqual(['base.cim', 'objectid', 'objectid', 'region', 'region', 'top.cim']);
      expect(await results([['cimfs', 'CimDismountImage', VOLUME]])).toEqual([OK]);
      await expect(readdir(volume())).rejects.toThrow('ENOENT');
    });

    it('keep what was said of a file: attributes, security, reparse data, attributes, streams', async () => {
      const data = { attributes: 0x420, security: '0100', reparse: '030000a0', extendedAttributes: 'ee' };
      const steps: Step[] = [
        ['cimfs', 'CimCreateImage', 'C:\\cims', null, 'a.cim', 'i'],
        ...file('i', 'f', 'x', data),
        ['cimfs', 'CimCreateAlternateStream', 'i', 'f:more:$DATA', 2, 's'],
        ['cimfs', 'CimWriteStream', 's', hex('yz'), 2],
        ['cimfs', 'CimCloseStream', 's'],
        ...close('i'),
        ['cimfs', 'CimMountImage', 'C:\\cims', 'a.cim', 0, VOLUME],
      ];
      expect(await failures(steps)).toEqual([]);
      const listing = await readFile(join(world.drive, `doubles/volumes/{${VOLUME}}.json`), 'utf8');
      expect((JSON.parse(listing) as object[]).at(-1)).toMatchObject({
        path: 'f',
        attributes: 0x420,
        size: 1,
        security: '0100',
        reparse: '030000a0',
        extendedAttributes: 'ee',
        streams: { more: hex('yz') },
      });
    });

    it('refuse more bytes than declared, and everything after fewer', async () => {
      const answers = await results([
        ['cimfs', 'CimCreateImage', 'C:\\cims', null, 'bytes.cim', 'i'],
        ['cimfs', 'CimCreateFile', 'i', 'f', { size: 3 }, 's'],
        ['cimfs', 'CimWriteStream', 's', hex('four'), 4],
        ['cimfs', 'CimWriteStream', 's', hex('ab'), 2],
        ['cimfs', 'CimCloseStream', 's'],
        ['cimfs', 'CimCommitImage', 'i'],
        ['cimfs', 'CimCreateFile', 'i', 'g', { size: 0 }, 's'],
      ]);
      expect(answers.slice(2)).toEqual([INVALID, OK, OK, INVALID, INVALID]);
    });

    it('refuse paths with a backslash at an end, parents that are not there, and handles that are closed', async () => {
      const answers = await results([
        ['cimfs', 'CimCreateImage', 'C:\\cims\\', null, 'a.cim', 'x'],
        ['cimfs', 'CimCreateImage', 'C:\\cims', null, 'a.cim', 'i'],
        ['cimfs', 'CimCreateFile', 'i', 'f\\', { size: 0 }, 's'],
        ['cimfs', 'CimCreateFile', 'i', '\\f', { size: 0 }, 's'],
        ['cimfs', 'CimCreateFile', 'i', 'no\\f', { size: 0 }, 's'],
        ['cimfs', 'CimCreateHardLink', 'i', 'g', 'f'],
        ['cimfs', 'CimDeletePath', 'i', 'f'],
        ['cimfs', 'CimTombstoneFile', 'i', 'f'],
        ['cimfs', 'CimCreateFile', 'i', 'f', { size: 1 }, 's'],
        // With a stream open.
        ['cimfs', 'CimCloseImage', 'i'],
        ['cimfs', 'CimWriteStream', 's', '00', 1],
        ['cimfs', 'CimCommitImage', 'i'],
        ['cimfs', 'CimMountImage', 'C:\\cims\\', 'a.cim', 0, VOLUME],
        ['cimfs', 'CimMountImage', 'C:\\cims', 'a.cim', 0, VOLUME],
        ['cimfs', 'CimDismountImage', VOLUME],
      ]);
      expect(answers).toEqual([
        ...[BAD_NAME, OK, BAD_NAME, BAD_NAME, '0x80070003', '0x80070002', '0x80070002', INVALID, OK, INVALID],
        ...[BAD_HANDLE, BAD_HANDLE, BAD_NAME, '0x80070002', '0x80070490'],
      ]);
    });

    it('mount an image no longer whose region file, or whose parent, is gone', async () => {
      const steps: Step[] = [
        ['cimfs', 'CimCreateImage', 'C:\\cims', null, 'base.cim', 'i'],
        ...close('i'),
        ['cimfs', 'CimCreateImage', 'C:\\cims', 'base.cim', 'top.cim', 'j'],
        ...close('j'),
      ];
      expect(await failures(steps)).toEqual([]);
      const regions = (await readdir(join(world.drive, 'cims'))).filter((name) => name.startsWith('region'));
      const header = await readFile(join(world.drive, 'cims/base.cim'));
      const own = regions.find(
        (name) => name.slice(7, 15) === header.readUInt32LE(32).toString(16).padStart(8, '0'),
      );
      await rm(join(world.drive, 'cims', own ?? 'none'));
      expect(await results([['cimfs', 'CimMountImage', 'C:\\cims', 'top.cim', 0, VOLUME]])).toEqual([
        '0x80070002',
      ]);
    });

    it('show merged images topmost first, with tombstones and merge links, and only in their order', async () => {
      const merge = (name: string, ...sources: string[]): Step[] => [
        ['cimfs', 'CimCreateImage2', `C:\\cims\\${name}.bcim`, SINGLE_FILE, null, 'merged.cim', 'm'],
        ...sources.map(
          (source): Step => [
            'cimfs',
            'CimAddFsToMergedImage2',
            'm',
            `C:\\cims\\${source}.bcim\\layer.cim`,
            1,
          ],
        ),
        ...close('m'),
      ];
      const mount = (...names: string[]): Step => [
        ...(['cimfs', 'CimMergeMountImage', names.length] as const),
        names.map((name, index) => ({
          directory: `C:\\cims\\${name}.bcim`,
          name: index === 0 ? 'merged.cim' : 'layer.cim',
        })),
        MOUNT_SINGLE_FILE,
        VOLUME,
      ];
      const made = await failures([
        ...blockImage('base', SINGLE_FILE, file('b', 'Files\\gone.txt', 'x')),
        ...blockImage('top', SINGLE_FILE, [
          ['cimfs', 'CimTombstoneFile', 'b', 'Files\\gone.txt'],
          ['cimfs', 'CimCreateMergeLink', 'b', 'Files\\link.txt', 'Files\\base.txt'],
        ]),
        ...merge('merged', 'top', 'base'),
      ]);
      expect(made).toEqual([]);
      const answers = await results([
        ...merge('alone', 'base'),
        mount('merged', 'base', 'top'),
        mount('merged', 'top'),
        ['cimfs', 'CimMountImage', 'C:\\cims\\merged.bcim', 'merged.cim', MOUNT_SINGLE_FILE, VOLUME],
        mount('merged', 'top', 'base'),
      ]);
      expect(answers.slice(2)).toEqual([INVALID, OK, INVALID, INVALID, INVALID, OK]);
      expect(await shownFiles()).toEqual(['base.txt', 'link.txt', 'top.txt']);
      expect(await readFile(join(volume(), 'Files/link.txt'), 'utf8')).toBe('base');
    });

    it('seal what was made to be sealed, once, and mount it with its root hash while it is untouched', async () => {
      const path = 'C:\\cims\\sealed.bcim';
      const verify: Step = ['cimfs', 'CimGetVerificationInformation', path, 0, 0, 0, 0, 0, 0];
      const mount = (hash: string): Step[] => [
        ['cimfs', 'CimMountVerifiedImage', path, 'layer.cim', MOUNT_SINGLE_FILE, VOLUME, 32, hash],
        ['cimfs', 'CimDismountImage', VOLUME],
      ];
      await takeSteps(world, [
        ...blockImage('plain', SINGLE_FILE),
        ...blockImage('sealed', SINGLE_FILE | VERIFIED),
      ]);
      const [plain, before, sealed, again, after] = await takeSteps(world, [
        ['cimfs', 'CimSealImage', 'C:\\cims\\plain.bcim', 0, 0, 0],
        verify,
        ['cimfs', 'CimSealImage', path, 0, 0, 0],
        ['cimfs', 'CimSealImage', path, 0, 0, 0],
        verify,
      ]);
      expect([plain?.[0], again?.[0]]).toEqual([INVALID, INVALID]);
      expect(before?.slice(0, 3)).toEqual([OK, 0, 0]);
      const hash = String(sealed?.[3]);
      expect(sealed).toEqual([OK, 32, 4096, hash]);
      expect(after?.slice(0, 6)).toEqual([OK, 1, 32, 0, 4096, hash]);
      expect(await results([...mount(hash), ...mount('00'.repeat(32))])).toEqual([
        OK,
        OK,
        CHECKSUM,
        '0x80070490',
      ]);
      const bytes = await readFile(join(world.drive, 'cims/sealed.bcim'));
      bytes[4100] = 0xff;
      await writeFile(join(world.drive, 'cims/sealed.bcim'), bytes);
      expect((await results(mount(hash)))[0]).toBe(CHECKSUM);
    });

    it('mount nothing unsealed as verified', async () => {
      await takeSteps(world, blockImage('open', SINGLE_FILE | VERIFIED));
      const path = 'C:\\cims\\open.bcim';
      const answers = await results([
        ['cimfs', 'CimMountVerifiedImage', path, 'layer.cim', MOUNT_SINGLE_FILE, VOLUME, 32, '00'.repeat(32)],
        ['cimfs', 'CimMountImage', path, 'layer.cim', MOUNT_SINGLE_FILE | 0x80, VOLUME],
      ]);
      expect(answers).toEqual([INVALID, INVALID]);
    });
  });

  it('of fltlib.dll list one filter at a time, and refuse what is too small or closed', async () => {
    const next: Step = ['fltlib', 'FilterFindNext', 'f', 2, 512, 1024, 0];
    const close: Step = ['fltlib', 'FilterFindClose', 'f'];
    const answers = await results([
      ['fltlib', 'FilterFindFirst', 2, 8, 16, 0, 'f'],
      ['fltlib', 'FilterFindFirst', 0, 512, 1024, 0, 'f'],
      ['fltlib', 'FilterFindFirst', 2, 512, 1024, 0, 'f'],
      ...[next, next, next, close, next, close],
    ]);
    expect(answers).toEqual([
      ...['0x8007007a', INVALID, OK],
      ...[OK, OK, '0x80070103', OK, BAD_HANDLE, BAD_HANDLE],
    ]);
  });

  describe('of the layer calls', () => {
    const SCRATCH = 'C:\\layers\\scratch';
    const INFO = 1;
    const layerData = JSON.stringify({
      SchemaVersion: { Major: 2, Minor: 1 },
      FilterType: 'UnionFS',
      Layers: [{ Id: VOLUME, Path: `\\\\?\\Volume{${VOLUME}}\\Files` }],
    });
    const scratchVolume = async (): Promise<string> => {
      const [[, length] = []] = await takeSteps(world, [
        ['vmcompute', 'GetLayerMountPath', INFO, SCRATCH, 0, null],
      ]);
      const [[, , path] = []] = await takeSteps(world, [
        ['vmcompute', 'GetLayerMountPath', INFO, SCRATCH, Number(length), Number(length)],
      ]);
      return String(path);
    };

    it('show parents below a scratch while its filter is attached, and take it down in reverse order only', async () => {
      await mkdir(join(world.drive, 'layers/base/Files'), { recursive: true });
      const made = await failures([
        ['cimfs', 'CimCreateImage', 'C:\\cims', null, 'a.cim', 'i'],
        ...folder('i', 'Files'),
        ...file('i', 'Files\\a.txt', 'a'),
        ...close('i'),
        ['vmcompute', 'CreateSandboxLayer', INFO, SCRATCH, 0, ['C:\\layers\\base'], 1],
        ['cimfs', 'CimMountImage', 'C:\\cims', 'a.cim', 0, VOLUME],
        ['vmcompute', 'ActivateLayer', INFO, SCRATCH],
      ]);
      expect(made).toEqual([]);
      const path = await scratchVolume();
      expect(path).toMatch(/^\\\\\?\\Volume\{[0-9a-f-]{36}\}$/);
      const answers = await results([
        ['vmcompute', 'ActivateLayer', INFO, SCRATCH],
        ['computestorage', 'HcsAttachOverlayFilter', path, layerData],
        ['computestorage', 'HcsAttachOverlayFilter', path, layerData],
        ['cimfs', 'CimDismountImage', VOLUME],
        ['vmcompute', 'DeactivateLayer', INFO, SCRATCH],
        ['vmcompute', 'DestroyLayer', INFO, SCRATCH],
      ]);
      expect(answers).toEqual([IN_USE, OK, '0x800700b7', BUSY, IN_USE, IN_USE]);
      const shown = volume(path.slice(11, -1));
      expect(await readdir(shown)).toEqual(['a.txt']);
      await writeFile(join(shown, 'own.txt'), 'own');
      const taken = await results([
        ['computestorage', 'HcsDetachOverlayFilter', path, layerData],
        ['vmcompute', 'DeactivateLayer', INFO, SCRATCH],
        ['cimfs', 'CimDismountImage', VOLUME],
        ['vmcompute', 'DestroyLayer', INFO, `${SCRATCH}\\`],
        ['vmcompute', 'DestroyLayer', INFO, SCRATCH],
      ]);
      expect(taken).toEqual([OK, OK, OK, BAD_NAME, OK]);
      expect(await readdir(join(world.drive, 'layers'))).toEqual(['base']);
    });

    it('refuse a driver info of another size or flavour, parents that are gone, and imports without privileges', async () => {
      await mkdir(join(world.drive, 'layers/base/Files'), { recursive: true });
      const answers = await results([
        ['vmcompute', 'ActivateLayer', 0, SCRATCH],
        ['vmcompute', 'CreateSandboxLayer', INFO, SCRATCH, 0, ['C:\\layers\\gone'], 1],
        ['vmcompute', 'ActivateLayer', INFO, SCRATCH],
        ['vmcompute', 'ImportLayer', INFO, 'C:\\layers\\new', 'C:\\layers\\base', [], 0],
        ['vmcompute', 'ProcessBaseImage', 'C:\\layers\\base'],
      ]);
      expect(answers).toEqual([INVALID, '0x80070003', '0x80070002', NO_PRIVILEGE, NO_PRIVILEGE]);
    });
  });

  describe('of mount points and bindings', () => {
    it('show a volume at a directory, and hide what was there until the binding is removed', async () => {
      await mkdir(join(world.drive, 'layers/there'));
      await writeFile(join(world.drive, 'layers/there/own.txt'), 'own');
      await mkdir(join(world.drive, 'layers/empty'));
      const target = `\\\\?\\Volume{${VOLUME}}\\`;
      const made = await failures([
        ['cimfs', 'CimCreateImage', 'C:\\cims', null, 'a.cim', 'i'],
        ...file('i', 'a.txt', 'a'),
        ...close('i'),
        ['cimfs', 'CimMountImage', 'C:\\cims', 'a.cim', 0, VOLUME],
        ['bindfltapi', 'BfSetupFilter', 'none', 0x41, 'C:\\layers\\there', target, null, 0],
      ]);
      expect(made).toEqual([]);
      expect(await readdir(join(world.drive, 'layers/there'))).toEqual(['a.txt']);
      const answers = await results([
        ['bindfltapi', 'BfSetupFilter', 'none', 0x41, 'C:\\layers\\there', target, null, 0],
        ['bindfltapi', 'BfSetupFilter', 'none', 0x41, 'C:\\layers\\new', target.slice(0, -1), null, 0],
        ['bindfltapi', 'BfRemoveMapping', 'none', 'C:\\layers\\there'],
        ['bindfltapi', 'BfRemoveMapping', 'none', 'C:\\layers\\there'],
      ]);
      expect(answers).toEqual([INVALID, INVALID, OK, '0x80070490']);
      expect(await readdir(join(world.drive, 'layers/there'))).toEqual(['own.txt']);
      // These return BOOL: 1 is success.
      const points = await results([
        ['kernel32', 'SetVolumeMountPointW', 'C:\\layers\\empty', target],
        ['kernel32', 'SetVolumeMountPointW', 'C:\\layers\\there\\', target],
        ['kernel32', 'SetVolumeMountPointW', 'C:\\layers\\empty\\', target],
      ]);
      expect(points).toEqual([OK, OK, '0x00000001']);
      expect(await readdir(join(world.drive, 'layers/empty'))).toEqual(['a.txt']);
      expect(await results([['kernel32', 'DeleteVolumeMountPointW', 'C:\\layers\\empty\\']])).toEqual([
        '0x00000001',
      ]);
      expect(await readdir(join(world.drive, 'layers/empty'))).toEqual([]);
    });
  });

  describe('of computecore.dll', () => {
    const systems = () => join(world.drive, 'doubles/systems');
    beforeEach(async () => {
      await mkdir(systems());
      await writeFile(join(systems(), 'vm.json'), '{"Id":"vm","SystemType":"VirtualMachine"}');
      await writeFile(join(systems(), 'vm.guest.json'), '{"GuestConnectionInfo":{"ProtocolVersion":4}}');
    });

    it('list the systems that are there, and answer what HCS documents of one', async () => {
      const ask = (operation: string, query: string | null): Step[] => [
        ['computecore', 'HcsCreateOperation', operation, null, null],
        ['computecore', 'HcsGetComputeSystemProperties', 's', operation, query],
        ['computecore', 'HcsWaitForOperationResult', operation, 100, null],
      ];
      const answers = await takeSteps(world, [
        ['computecore', 'HcsCreateOperation', 'o', null, null],
        ['computecore', 'HcsEnumerateComputeSystems', null, 'o'],
        ['computecore', 'HcsWaitForOperationResult', 'o', 100, null],
        ['computecore', 'HcsEnumerateComputeSystems', null, 'o'],
        ['computecore', 'HcsOpenComputeSystem', 'gone', 0x10000000, 's'],
        ['computecore', 'HcsOpenComputeSystem', 'vm', 0x10000000, 's'],
        ...ask('p', '{"PropertyTypes":["GuestConnection"]}'),
        ...ask('q', '{"PropertyTypes":["MappedVirtualDisk"]}'),
        ...ask('r', '{"PropertyTypes":["Storage"]}'),
      ]);
      expect(answers[2]).toEqual([OK, '[{"Id":"vm","SystemType":"VirtualMachine"}]']);
      expect([3, 4, 5].map((step) => answers[step]?.[0])).toEqual([INVALID, '0x8037010e', OK]);
      const all = '{"Id":"vm","SystemType":"VirtualMachine","GuestConnectionInfo":{"ProtocolVersion":4}}';
      expect(answers[8]).toEqual([OK, all]);
      expect([10, 13].map((step) => answers[step]?.[0])).toEqual(['0x8037010d', '0x8037010d']);
    });

    it('keep what a VM is given, and refuse what HCS and guests refuse', async () => {
      await writeFile(join(world.drive, 'a.vhd'), '');
      const scsi = (
        lun: number,
        verb = 'Add',
        settings: object = { Type: 'VirtualDisk', Path: 'C:\\a.vhd' },
      ) => ({
        ResourcePath: `VirtualMachine/Devices/Scsi/df6d0690-79e5-55b6-a5ec-c1e2f77f580a/Attachments/${lun}`,
        RequestType: verb,
        ...(verb === 'Add' ? { Settings: settings } : {}),
      });
      const guest = (ResourceType: string, RequestType: string, Settings: object) => ({
        GuestRequest: { ResourceType, RequestType, Settings },
      });
      const mount = { ContainerPath: 'C:\\c', Lun: 0 };
      const layers = (path: string) => ({ ContainerRootPath: 'C:\\c', Layers: [{ Id: 'x', Path: path }] });
      const changes: [object, string][] = [
        [{}, '0x8037010d'],
        [{ ...scsi(0), Unknown: 1 }, '0x8037010d'],
        [{ ResourcePath: 'VirtualMachine/Devices/Floppy', RequestType: 'Add' }, INVALID],
        [scsi(64), INVALID],
        [scsi(0, 'Add', { Type: 'VirtualDisk', Path: 'C:\\none.vhd' }), '0x80070002'],
        [guest('MappedVirtualDisk', 'Add', mount), '0x80070490'],
        [scsi(0), OK],
        [scsi(0), '0x800700b7'],
        [scsi(1), IN_USE],
        [scsi(1, 'Remove'), '0x80070490'],
        [guest('MappedVirtualDisk', 'Add', mount), OK],
        [scsi(0, 'Remove'), IN_USE],
        [guest('CombinedLayers', 'Add', layers('C:\\none')), '0x80070490'],
        [guest('CombinedLayers', 'Add', layers('C:\\c')), OK],
        [guest('MappedVirtualDisk', 'Remove', mount), IN_USE],
        [guest('CombinedLayers', 'Remove', { ContainerRootPath: 'C:\\c' }), OK],
        [guest('MappedVirtualDisk', 'Remove', mount), OK],
      ];
      const steps = changes.flatMap(([change], index): Step[] => [
        ['computecore', 'HcsCreateOperation', `o${index}`, null, null],
        ['computecore', 'HcsModifyComputeSystem', 's', `o${index}`, JSON.stringify(change), null],
      ]);
      const answers = await takeSteps(world, [
        ['computecore', 'HcsOpenComputeSystem', 'vm', 0x10000000, 's'],
        ...steps,
      ]);
      const got = changes.map(([change], index) => [change, answers[2 + index * 2]?.[0]]);
      expect(got).toEqual(changes);
      expect(await readdir(join(systems(), 'vm.devices'))).toEqual(['scsi 0-0']);
    });
  });

  describe('of any DLL', () => {
    const step: Step = ['cimfs', 'CimCreateImage', 'C:\\cims', null, 'a.cim', 'i'];
    const commit: Step[] = [['cimfs', 'CimCommitImage', 'i']];

    it('log each call with its arguments and result', async () => {
      await takeSteps(world, [step, ['cimfs', 'CimCreateFile', 'i', 'f', { size: 7 }, 's']]);
      expect(await world.calls()).toMatchObject([
        { dll: 'cimfs', call: 'CimCreateImage', result: OK, concurrent: 1 },
        { call: 'CimCreateFile', args: { path: 'f', size: 7, attributes: 0x20 }, result: OK },
      ]);
    });

    it('fail the nth call as planned, with and without its effect', async () => {
      await world.plan([
        { call: 'CimDeletePath', nth: 2, action: 'fail', code: 0x80070005 },
        { call: 'CimCommitImage', action: 'fail-after', code: 0x80070015 },
      ]);
      const gone: Step = ['cimfs', 'CimDeletePath', 'i', 'f'];
      expect(await results([step, gone, gone, gone, ...commit])).toEqual([
        ...[OK, '0x80070002', '0x80070005', '0x80070002', '0x80070015'],
      ]);
      expect(await readdir(join(world.drive, 'cims'))).toContain('a.cim');
    });

    it.each([
      { action: 'kill', there: false },
      { action: 'kill-after', there: true },
    ] as const)('kill the process as planned: $action', async ({ action, there }) => {
      await world.plan([{ call: 'CimCommitImage', action }]);
      await expect(takeSteps(world, [step, ...commit])).rejects.toThrow('exit 137');
      expect((await readdir(join(world.drive, 'cims'))).includes('a.cim')).toBe(there);
      expect((await world.calls()).at(-1)?.fault).toMatch(/^killed/);
    });

    it('hang until they are released; what they keep outlives a process that is killed', async () => {
      const mount: Step = ['cimfs', 'CimMountImage', 'C:\\cims', 'a.cim', 0, VOLUME];
      await takeSteps(world, [step, ...file('i', 'f', 'x'), ...close('i'), mount]);
      await world.plan([{ call: 'CimDismountImage', action: 'hang' }]);
      const hanging = await startSteps(world, [['cimfs', 'CimDismountImage', VOLUME]]);
      await world.untilCall(({ fault }) => fault === 'hangs');
      await hanging.kill();
      expect(await readdir(volume())).toEqual(['f']);
      await world.plan([{ call: 'CimDismountImage', action: 'hang' }]);
      await world.forgetCalls();
      const released = await startSteps(world, [['cimfs', 'CimDismountImage', VOLUME]]);
      await world.untilCall(({ fault }) => fault === 'hangs');
      await world.release();
      expect((await released.result()).code).toBe(0);
      await expect(readdir(volume())).rejects.toThrow('ENOENT');
    });
  });
});
