/**
 * Calls functions of DLLs in a Windows process: reads steps as JSON from standard input, prints what they returned. Its
 * prototypes are its own, so that it is a second reading of the contract beside the product's bindings.
 */

import { text } from 'node:stream/consumers';
import koffi from 'koffi';
import type { Step } from './steps.ts';

koffi.struct('METADATA', {
  attributes: 'uint32',
  size: 'int64',
  creation: 'int64',
  lastWrite: 'int64',
  change: 'int64',
  lastAccess: 'int64',
  security: 'uint8 *',
  securitySize: 'uint32',
  reparse: 'uint8 *',
  reparseSize: 'uint32',
  extendedAttributes: 'uint8 *',
  extendedAttributesSize: 'uint32',
});
koffi.struct('IMAGE_PATH', { directory: 'char16_t *', name: 'char16_t *' });
koffi.struct('DRIVER_INFO', { flavour: 'int32', home: 'char16_t *' });
koffi.struct('DESCRIPTOR', { id: koffi.array('uint8', 16), flags: 'uint32', path: 'char16_t *' });

/**
 * Parameters, a letter each: `h` handle, `H` handle out, `s` string, `u`/`U` 32/64 bits, `o`/`O` the same out, `B` bytes,
 * `X` 32 bytes out, `G` GUID, `M` metadata, `P` image paths, `I` the flavour of a driver info, `L` layers by path,
 * `E` number in and out, `W` text out, `T` text out by address. `>` first: it returns a handle, named by the first argument.
 */
const PROTOTYPES: Readonly<Record<string, string>> = {
  CimCreateImage: 'sssH',
  CimCreateImage2: 'sussH',
  CimCloseImage: 'h',
  CimCommitImage: 'h',
  CimCreateFile: 'hsMH',
  CimCreateAlternateStream: 'hsUH',
  CimWriteStream: 'hBu',
  CimCloseStream: 'h',
  CimDeletePath: 'hs',
  CimCreateHardLink: 'hss',
  CimCreateMergeLink: 'hss',
  CimTombstoneFile: 'hs',
  CimAddFsToMergedImage2: 'hsu',
  CimSealImage: 'sOOX',
  CimGetVerificationInformation: 'soOOOXX',
  CimMountImage: 'ssuG',
  CimMountVerifiedImage: 'ssuGuB',
  CimMergeMountImage: 'uPuG',
  CimMergeMountVerifiedImage: 'uPuGuB',
  CimDismountImage: 'G',
  ActivateLayer: 'Is',
  DeactivateLayer: 'Is',
  PrepareLayer: 'ILu',
  UnprepareLayer: 'Is',
  CreateSandboxLayer: 'IsULu',
  ExpandSandboxSize: 'IsU',
  DestroyLayer: 'Is',
  ImportLayer: 'IssLu',
  GetLayerMountPath: 'IsEW',
  ProcessBaseImage: 's',
  HcsAttachOverlayFilter: 'ss',
  HcsDetachOverlayFilter: 'ss',
  HcsImportLayer: 'sss',
  HcsDestroyLayer: 's',
  HcsCreateOperation: '>nn',
  HcsCloseOperation: 'h',
  HcsWaitForOperationResult: 'huT',
  HcsEnumerateComputeSystems: 'sh',
  HcsOpenComputeSystem: 'suH',
  HcsGetComputeSystemProperties: 'hhs',
  HcsModifyComputeSystem: 'hhsn',
  HcsCloseComputeSystem: 'h',
  SetVolumeMountPointW: 'ss',
  DeleteVolumeMountPointW: 's',
  FilterFindFirst: 'uWuoH',
  FilterFindNext: 'huWuo',
  FilterFindClose: 'h',
  BfSetupFilter: 'hussnu',
  BfRemoveMapping: 'hs',
};

const TYPES: Readonly<Record<string, string>> = {
  h: 'uint64',
  H: '_Out_ uint64 *',
  s: 'char16_t *',
  u: 'uint32',
  U: 'uint64',
  o: '_Out_ uint32 *',
  O: '_Out_ uint64 *',
  X: '_Out_ uint8 *',
  B: 'uint8 *',
  G: 'uint8 *',
  M: 'METADATA *',
  P: 'IMAGE_PATH *',
  I: 'DRIVER_INFO *',
  L: 'DESCRIPTOR *',
  E: '_Inout_ uint64 *',
  W: '_Out_ uint8 *',
  n: 'void *',
  T: '_Out_ char16_t **',
};

const libraries = new Map<string, ReturnType<typeof koffi.load>>();
const handles = new Map<string, bigint>();

function bytesOf(value: unknown): Buffer | null {
  return value === null ? null : Buffer.from(String(value), 'hex');
}

/** A GUID's text in the order of its bytes in memory. */
function guidBytes(guid: string): Buffer {
  const [a = '', b = '', c = '', ...rest] = guid.split('-');
  const swapped = [a, b, c].map((part) => Buffer.from(part, 'hex').reverse());
  return Buffer.concat([...swapped, Buffer.from(rest.join(''), 'hex')]);
}

function metadataOf(value: Record<string, unknown>): Record<string, unknown> {
  const blob = (name: string) => (value[name] === undefined ? null : bytesOf(value[name]));
  return {
    attributes: value.attributes ?? 0x20,
    size: value.size ?? 0,
    creation: 1,
    lastWrite: value.lastWrite ?? 133_594_000_000_000_000n,
    change: 3,
    lastAccess: 4,
    security: blob('security'),
    securitySize: blob('security')?.length ?? 0,
    reparse: blob('reparse'),
    reparseSize: blob('reparse')?.length ?? 0,
    extendedAttributes: blob('extendedAttributes'),
    extendedAttributesSize: blob('extendedAttributes')?.length ?? 0,
  };
}

/** `name` is a DLL's file without `.dll`. */
function libraryOf(name: string): ReturnType<typeof koffi.load> {
  let library = libraries.get(name);
  if (library === undefined) {
    library = koffi.load(`${process.env.SystemRoot}\\System32\\${name}.dll`);
    libraries.set(name, library);
  }
  return library;
}

/** With the ID that Windows gives a layer's name. */
function descriptorOf(path: string): object {
  const id = Buffer.alloc(16);
  libraryOf('vmcompute').func('int32 NameToGuid(char16_t *, _Out_ uint8 *)')(path.split('\\').at(-1), id);
  return { id: [...id], flags: 0, path };
}

function call([dll, name, ...args]: Step): unknown[] {
  const [returned = '', prototype = ''] = /^(>?)(.*)$/.exec(PROTOTYPES[name] ?? '')?.slice(1) ?? [];
  const made = returned === '' ? undefined : String(args.shift());
  const parameters = [...prototype].map((kind) => TYPES[kind]).join(', ');
  const invoke = libraryOf(dll).func(`int32 ${name}(${parameters})`);
  const outs: [string, unknown][] = [];
  const values = [...prototype].map((kind, index) => {
    const arg = args[index];
    if (kind === 'h') return handles.get(String(arg)) ?? 0n;
    if (kind === 'B') return bytesOf(arg);
    if (kind === 'G') return arg === null ? null : guidBytes(String(arg));
    if (kind === 'M') return metadataOf(arg as Record<string, unknown>);
    if (kind === 'H' || kind === 'o' || kind === 'O' || kind === 'T') {
      const out = [0];
      outs.push([kind === 'H' ? `>${arg}` : kind, out]);
      return out;
    }
    if (kind === 'X' || (kind === 'W' && arg !== null)) {
      const out = Buffer.alloc(kind === 'X' ? 32 : Number(arg) * 2);
      outs.push([kind, out]);
      return out;
    }
    if (kind === 'E') {
      const out = [arg];
      outs.push([kind, out]);
      return out;
    }
    if (kind === 'I') return { flavour: arg, home: '' };
    if (kind === 'L') return (arg as string[]).map(descriptorOf);
    return arg;
  });
  const value = invoke(...values) as number;
  if (made !== undefined) handles.set(made, BigInt(value));
  const result = `0x${(value >>> 0).toString(16).padStart(8, '0')}`;
  const shown: unknown[] = [result];
  for (const [kind, out] of outs) {
    if (kind === 'W') shown.push((out as Buffer).toString('utf16le').split('\0', 1)[0]);
    else if (Buffer.isBuffer(out)) shown.push(out.toString('hex'));
    else if (kind.startsWith('>')) handles.set(kind.slice(1), BigInt((out as number[])[0] ?? 0));
    else if (kind === 'T') shown.push((out as unknown[])[0]);
    else shown.push(Number((out as number[])[0]));
  }
  return shown;
}

const steps = JSON.parse(await text(process.stdin)) as Step[];
console.log(JSON.stringify(steps.map(call)));
