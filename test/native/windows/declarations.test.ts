/** Declarations of functions and structs against a C compiler and the headers that declare the same ones in C. */

import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { type CType, layoutOf, type Signature, type Struct } from '../../../src/native/library.ts';
import * as advapi32 from '../../../src/native/windows/advapi32.ts';
import { backupFiles } from '../../../src/native/windows/backup.ts';
import * as bindfltapi from '../../../src/native/windows/bindfltapi.ts';
import * as cimCalls from '../../../src/native/windows/cim-calls.ts';
import * as cimfs from '../../../src/native/windows/cimfs.ts';
import * as ctypes from '../../../src/native/windows/ctypes.ts';
import { type Dll, Dlls, type Table } from '../../../src/native/windows/dll.ts';
import { fileFacts } from '../../../src/native/windows/file-info.ts';
import * as fileStructs from '../../../src/native/windows/file-structs.ts';
import * as fltlib from '../../../src/native/windows/fltlib.ts';
import * as ntdll from '../../../src/native/windows/ntdll.ts';
import * as rstrtmgr from '../../../src/native/windows/rstrtmgr.ts';
import * as serviceDispatcher from '../../../src/native/windows/service-dispatcher.ts';
import * as services from '../../../src/native/windows/services.ts';
import * as virtdisk from '../../../src/native/windows/virtdisk.ts';
import * as vmcompute from '../../../src/native/windows/vmcompute.ts';
import { openWindowsApi } from '../../../src/native/windows/windows.ts';
import { hasTool, requireOrSkip } from '../../support/requirements.ts';

const COMPILER = 'x86_64-w64-mingw32-gcc';

/** DLLs whose functions mingw-w64's headers declare. */
const WITH_HEADERS: readonly string[] = [
  'advapi32.dll',
  'computecore.dll',
  'computestorage.dll',
  'fltlib.dll',
  'kernel32.dll',
  'rstrtmgr.dll',
  'virtdisk.dll',
];

/** Newer than the headers. */
const WITHOUT_DECLARATION: readonly string[] = ['HcsAttachOverlayFilter', 'HcsDetachOverlayFilter'];

const HEADERS = `
#define _WIN32_WINNT 0x0A00
#define NTDDI_VERSION 0x0A000010
/* HCS_OPERATION and its kin are HANDLEs then. */
#define NO_STRICT
#include <stddef.h>
#include <windows.h>
#include <winternl.h>
#include <initguid.h>
#include <virtdisk.h>
#include <restartmanager.h>
#include <fltuser.h>
#include <computestorage.h>
#include <computecore.h>
`;

/** What has no header, from the documentation (Microsoft Learn, hcsshim, go-winio), in its own types. */
const OTHER_STRUCTS = `
typedef struct {
  UINT32 Attributes;
  INT64 FileSize;
  LARGE_INTEGER CreationTime, LastWriteTime, ChangeTime, LastAccessTime;
  const void *SecurityDescriptorBuffer;
  UINT32 SecurityDescriptorSize;
  const void *ReparseDataBuffer;
  UINT32 ReparseDataSize;
  const void *EaBuffer;
  UINT32 EaBufferSize;
} CIMFS_FILE_METADATA;
typedef struct { PCWSTR ImageDir; PCWSTR ImageName; } CIMFS_IMAGE_PATH;
typedef enum { DiffDriver, FilterDriver } GRAPH_DRIVER_TYPE;
typedef struct { GRAPH_DRIVER_TYPE Flavour; LPCWSTR HomeDir; } DRIVER_INFO;
typedef struct {
  GUID LayerId;
  union { struct { ULONG Reserved : 31; ULONG Dirty : 1; }; ULONG Value; } Flags;
  PCWSTR Path;
} WC_LAYER_DESCRIPTOR;
typedef struct { UINT32 Size, Status, MappingCount; } BIND_MAPPINGS;
typedef struct {
  UINT32 VirtRootLength, VirtRootOffset, Flags, NumberOfTargets, TargetEntriesOffset;
} BIND_MAPPING;
typedef struct {
  CREATE_VIRTUAL_DISK_VERSION Version;
  union {
    struct {
      GUID UniqueId;
      ULONGLONG MaximumSize;
      ULONG BlockSizeInBytes, SectorSizeInBytes, PhysicalSectorSizeInBytes;
      PCWSTR ParentPath, SourcePath;
      OPEN_VIRTUAL_DISK_FLAG OpenFlags;
      VIRTUAL_STORAGE_TYPE ParentVirtualStorageType, SourceVirtualStorageType;
      GUID ResiliencyGuid;
    } Version2;
  };
} NEW_CREATE_VIRTUAL_DISK_PARAMETERS;
typedef struct {
  ATTACH_VIRTUAL_DISK_VERSION Version;
  union {
    struct { ULONG Reserved; } Version1;
    struct { ULONGLONG RestrictedOffset; ULONGLONG RestrictedLength; } Version2;
  };
} NEW_ATTACH_VIRTUAL_DISK_PARAMETERS;
typedef struct { UINT32 TargetRootLength, TargetRootOffset; } BIND_TARGET;
typedef struct {
  BOOLEAN ReplaceIfExists;
  HANDLE RootDirectory;
  ULONG FileNameLength;
  WCHAR FileName[1];
} NT_FILE_LINK_INFORMATION;
typedef struct { DWORD Flags; } NEW_FILE_DISPOSITION_INFO_EX;
`;

interface CShape {
  /** Its name in C, where the header's is too old. */
  name?: string;
  /** A field's path in C. */
  path?: (field: string) => string;
  /** Other arms of a union may be longer. */
  partial?: boolean;
}

/** Structs that aren't in C as they are here, mostly one arm of a union. */
const SHAPES: Readonly<Record<string, CShape>> = {
  // mingw-w64's lacks the physical sector size.
  CREATE_VIRTUAL_DISK_PARAMETERS: { name: 'NEW_CREATE_VIRTUAL_DISK_PARAMETERS' },
  FILE_LINK_INFORMATION: { name: 'NT_FILE_LINK_INFORMATION' },
  FILE_DISPOSITION_INFO_EX: { name: 'NEW_FILE_DISPOSITION_INFO_EX' },
  OPEN_VIRTUAL_DISK_PARAMETERS: { partial: true },
  ATTACH_VIRTUAL_DISK_PARAMETERS: {
    name: 'NEW_ATTACH_VIRTUAL_DISK_PARAMETERS',
    path: (field) => (field === 'Version' ? field : `Version2.${field}`),
  },
  FILTER_AGGREGATE_STANDARD_INFORMATION: {
    path: (field) =>
      ['NextEntryOffset', 'Flags'].includes(field)
        ? field
        : `Type.MiniFilter.${field.replace('MiniFilterFlags', 'Flags')}`,
  },
};

/** Passes on what is opened, and remembers it. */
class RecordedDlls extends Dlls {
  readonly tables: { file: string; table: Table<string> }[] = [];

  override open<Name extends string>(file: string, table: Table<Name>): Dll<Name> {
    this.tables.push({ file, table });
    return super.open(file, table);
  }
}

const recorded = new RecordedDlls(() => []);
openWindowsApi(recorded);
backupFiles(recorded);
fileFacts(recorded);
new services.ServiceControlManager(recorded);
new serviceDispatcher.ServiceDispatcher(recorded);

const MODULES = [
  ...[advapi32, bindfltapi, cimCalls, cimfs, ctypes, fileStructs, fltlib, ntdll, rstrtmgr],
  ...[serviceDispatcher, services, virtdisk, vmcompute],
];
const STRUCTS = MODULES.flatMap((module) => Object.values(module) as unknown[]).filter(
  (value): value is Struct => (value as Struct | undefined)?.kind === 'struct',
);

describe.runIf(requireOrSkip(COMPILER, hasTool(COMPILER)))('declarations', () => {
  it('lay structs out as the C compiler does', () => {
    expect(STRUCTS.length).toBeGreaterThan(15);
    expect(problems(STRUCTS.flatMap(layoutClaims))).toEqual([]);
  });

  it('would be caught lying', () => {
    const { size } = layoutOf(cimCalls.CIMFS_FILE_METADATA);
    expect(size).toBe(96);
    expect(problems([claim('sizeof(CIMFS_FILE_METADATA) == 88', 'a lie')])).toEqual([
      expect.stringContaining('a lie'),
    ]);
    const { HANDLE, WIN32_ERROR, HRESULT } = ctypes;
    const lies: [Signature, string][] = [
      [[WIN32_ERROR, [HANDLE, 'uint64', 'uint32']], 'different width'],
      [[WIN32_ERROR, [HANDLE, 'uint32']], 'too few arguments'],
      [[HRESULT, [HANDLE, 'uint32', 'uint32']], 'something else'],
    ];
    const found = problems(lies.map(([lie]) => callOf('DetachVirtualDisk', lie))).join('\n');
    for (const [, complaint] of lies) expect(found).toContain(complaint);
  });

  it('call functions as the headers say', () => {
    const tables = recorded.tables.filter(({ file }) => WITH_HEADERS.includes(file));
    const rows = tables.flatMap(({ table }) => Object.entries(table));
    // A function may be in several tables.
    const declared = rows.filter(([name]) => !WITHOUT_DECLARATION.includes(name));
    expect(declared.length).toBeGreaterThan(45);
    expect(problems(declared.map(([name, signature], index) => callOf(name, signature, index)))).toEqual([]);
  });
});

/** What the compiler has against some lines of C. */
function problems(lines: readonly string[]): string[] {
  const flags = ['-std=c11', '-fsyntax-only', '-Werror', '-Wall', '-Wtraditional-conversion', '-xc', '-'];
  const input = [HEADERS, OTHER_STRUCTS, ...lines].join('\n');
  const { stderr, status } = spawnSync(COMPILER, flags, { input, encoding: 'utf8' });
  const errors = stderr.split('\n').filter((line) => line.includes('error:'));
  return status === 0 || errors.length > 0 ? errors : [stderr];
}

function claim(condition: string, text: string): string {
  return `_Static_assert(${condition}, "${text}");`;
}

function layoutClaims(type: Struct): string[] {
  const { name = type.name, partial = false, path = (field: string) => field } = SHAPES[type.name] ?? {};
  const { size } = layoutOf(type);
  const fields = leaves(type).map(({ field, offset }) =>
    claim(`offsetof(${name}, ${path(field)}) == ${offset}`, `${type.name}.${field} is not at ${offset}`),
  );
  return partial
    ? fields
    : [...fields, claim(`sizeof(${name}) == ${size}`, `${type.name} has not ${size} bytes`)];
}

/** Fields, also those of structs inside. */
function leaves(type: Struct): { field: string; offset: number }[] {
  const { offsets } = layoutOf(type);
  return Object.entries(type.fields).flatMap(([field, of]) => {
    const offset = offsets[field] ?? Number.NaN;
    const inside = typeof of === 'object' && of.kind === 'struct' ? leaves(of) : [];
    return [
      { field, offset },
      ...inside.map((leaf) => ({ field: `${field}.${leaf.field}`, offset: offset + leaf.offset })),
    ];
  });
}

/** A call with arguments of exactly the declared types, and a claim about the type of what it gives. */
function callOf(row: string, [result, parameters, name = row]: Signature, number = 0): string {
  const call = `${name}(${parameters.map((type) => `(${cType(type)})0`).join(', ')})`;
  const given = `__builtin_types_compatible_p(__typeof__(${call}), ${cType(result)})`;
  return `${claim(given, `${name} gives something else`)} void call_${name}_${number}(void) { (void)${call}; }`;
}

const C_NAMES: Readonly<Record<string, string>> = {
  int32: 'INT',
  uint: 'UINT',
  uint16: 'USHORT',
  uint32: 'ULONG',
  uint64: 'ULONGLONG',
  intptr: 'INT_PTR',
  str16: 'PCWSTR',
  pointer: 'void *',
  void: 'void',
  WIN32_ERROR: 'DWORD',
  DOCUMENT: 'PCWSTR',
};

function cType(type: CType): string {
  if (typeof type === 'string') return C_NAMES[type] ?? type;
  switch (type.kind) {
    case 'alias':
      return C_NAMES[type.name] ?? type.name;
    case 'pointer':
    case 'out':
      return `${cType(type.of)} *`;
    case 'struct':
      return type.name;
    case 'array':
    case 'callback':
      throw new Error(`C passes no ${type.kind} without a name`);
  }
}
