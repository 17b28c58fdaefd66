/**
 * Windows error numbers -> name, code and remedy, once. Names are those of winerror.h and ntstatus.h; numbers that need no
 * class of their own are `native`.
 */

import type { ErrorCode } from '../../errors.ts';

export type StatusKind = 'HRESULT' | 'WIN32_ERROR' | 'NTSTATUS';

/** Win32 errors that callers compare with. */
export const Win32Error = {
  FILE_NOT_FOUND: 2,
  PATH_NOT_FOUND: 3,
  ACCESS_DENIED: 5,
  NO_MORE_FILES: 18,
  NOT_READY: 21,
  GEN_FAILURE: 31,
  SHARING_VIOLATION: 32,
  NOT_SUPPORTED: 50,
  INVALID_PARAMETER: 87,
  INSUFFICIENT_BUFFER: 122,
  INVALID_LEVEL: 124,
  MORE_DATA: 234,
  NO_MORE_ITEMS: 259,
  SERVICE_ALREADY_RUNNING: 1056,
  SERVICE_DOES_NOT_EXIST: 1060,
  SERVICE_NOT_ACTIVE: 1062,
  FAILED_SERVICE_CONTROLLER_CONNECT: 1063,
  DEVICE_NOT_CONNECTED: 1167,
  NOT_FOUND: 1168,
  NOT_ALL_ASSIGNED: 1300,
} as const;

type Known = readonly [name: string, code: ErrorCode, hint?: string];

const HOLDER =
  'something holds it open: a running container, a filter driver (antivirus), or another process';
const ELEVATE = 'run as an administrator, in an elevated session or a HostProcess container';

const WIN32: Readonly<Record<number, Known>> = {
  1: ['ERROR_INVALID_FUNCTION', 'unsupported-host'],
  2: ['ERROR_FILE_NOT_FOUND', 'not-found'],
  3: ['ERROR_PATH_NOT_FOUND', 'not-found'],
  4: ['ERROR_TOO_MANY_OPEN_FILES', 'busy'],
  5: ['ERROR_ACCESS_DENIED', 'access-denied', ELEVATE],
  6: ['ERROR_INVALID_HANDLE', 'native'],
  8: ['ERROR_NOT_ENOUGH_MEMORY', 'unavailable'],
  13: ['ERROR_INVALID_DATA', 'corrupt'],
  14: ['ERROR_OUTOFMEMORY', 'unavailable'],
  15: ['ERROR_INVALID_DRIVE', 'not-found'],
  16: ['ERROR_CURRENT_DIRECTORY', 'busy'],
  17: ['ERROR_NOT_SAME_DEVICE', 'failed-precondition'],
  18: ['ERROR_NO_MORE_FILES', 'not-found'],
  19: ['ERROR_WRITE_PROTECT', 'access-denied'],
  21: ['ERROR_NOT_READY', 'unavailable'],
  23: ['ERROR_CRC', 'corrupt'],
  31: ['ERROR_GEN_FAILURE', 'native'],
  32: ['ERROR_SHARING_VIOLATION', 'busy', HOLDER],
  33: ['ERROR_LOCK_VIOLATION', 'busy', HOLDER],
  39: ['ERROR_HANDLE_DISK_FULL', 'no-space'],
  50: ['ERROR_NOT_SUPPORTED', 'unsupported-host'],
  80: ['ERROR_FILE_EXISTS', 'already-exists'],
  87: ['ERROR_INVALID_PARAMETER', 'failed-precondition'],
  111: ['ERROR_BUFFER_OVERFLOW', 'native'],
  112: ['ERROR_DISK_FULL', 'no-space'],
  120: ['ERROR_CALL_NOT_IMPLEMENTED', 'unsupported-host'],
  121: ['ERROR_SEM_TIMEOUT', 'unavailable'],
  122: ['ERROR_INSUFFICIENT_BUFFER', 'native'],
  123: ['ERROR_INVALID_NAME', 'failed-precondition'],
  124: ['ERROR_INVALID_LEVEL', 'unsupported-host'],
  126: ['ERROR_MOD_NOT_FOUND', 'unsupported-host'],
  127: ['ERROR_PROC_NOT_FOUND', 'unsupported-host'],
  145: ['ERROR_DIR_NOT_EMPTY', 'already-exists'],
  161: ['ERROR_BAD_PATHNAME', 'failed-precondition'],
  170: ['ERROR_BUSY', 'busy', HOLDER],
  183: ['ERROR_ALREADY_EXISTS', 'already-exists'],
  206: ['ERROR_FILENAME_EXCED_RANGE', 'failed-precondition'],
  234: ['ERROR_MORE_DATA', 'native'],
  258: ['WAIT_TIMEOUT', 'unavailable'],
  259: ['ERROR_NO_MORE_ITEMS', 'not-found'],
  267: ['ERROR_DIRECTORY', 'failed-precondition'],
  995: ['ERROR_OPERATION_ABORTED', 'cancelled'],
  1005: ['ERROR_UNRECOGNIZED_VOLUME', 'failed-precondition'],
  1009: ['ERROR_BADDB', 'corrupt'],
  1015: ['ERROR_REGISTRY_CORRUPT', 'corrupt'],
  1017: ['ERROR_NOT_REGISTRY_FILE', 'corrupt'],
  1053: ['ERROR_SERVICE_REQUEST_TIMEOUT', 'unavailable'],
  1056: ['ERROR_SERVICE_ALREADY_RUNNING', 'already-exists'],
  1060: ['ERROR_SERVICE_DOES_NOT_EXIST', 'not-found'],
  1061: ['ERROR_SERVICE_CANNOT_ACCEPT_CTRL', 'busy', 'it is starting or stopping'],
  1062: ['ERROR_SERVICE_NOT_ACTIVE', 'not-found'],
  1063: ['ERROR_FAILED_SERVICE_CONTROLLER_CONNECT', 'failed-precondition'],
  1069: ['ERROR_SERVICE_LOGON_FAILED', 'access-denied', 'set the password of the account it runs as anew'],
  1072: [
    'ERROR_SERVICE_MARKED_FOR_DELETE',
    'busy',
    'close what has it open: the Services console, Task Manager',
  ],
  1073: ['ERROR_SERVICE_EXISTS', 'already-exists'],
  1117: ['ERROR_IO_DEVICE', 'native'],
  1167: ['ERROR_DEVICE_NOT_CONNECTED', 'unavailable'],
  1168: ['ERROR_NOT_FOUND', 'not-found'],
  1223: ['ERROR_CANCELLED', 'cancelled'],
  1295: ['ERROR_DISK_QUOTA_EXCEEDED', 'no-space'],
  1300: ['ERROR_NOT_ALL_ASSIGNED', 'access-denied', ELEVATE],
  1314: ['ERROR_PRIVILEGE_NOT_HELD', 'access-denied', ELEVATE],
  1392: ['ERROR_FILE_CORRUPT', 'corrupt'],
  1393: ['ERROR_DISK_CORRUPT', 'corrupt'],
  1450: ['ERROR_NO_SYSTEM_RESOURCES', 'unavailable'],
  1460: ['ERROR_TIMEOUT', 'unavailable'],
  2404: ['ERROR_DEVICE_IN_USE', 'busy', HOLDER],
  4390: ['ERROR_NOT_A_REPARSE_POINT', 'failed-precondition'],
  4392: ['ERROR_INVALID_REPARSE_DATA', 'failed-precondition'],
};

const HCS = 'Hyper-V Host Compute Service';

const HRESULTS: ReadonlyMap<number, Known> = new Map<number, Known>([
  [0x80004001, ['E_NOTIMPL', 'unsupported-host']],
  [0x80004004, ['E_ABORT', 'cancelled']],
  [0x80004005, ['E_FAIL', 'native']],
  [0x8000ffff, ['E_UNEXPECTED', 'native']],
  [0x801f0013, ['ERROR_FLT_FILTER_NOT_FOUND', 'not-found']],
  [0x801f0014, ['ERROR_FLT_VOLUME_NOT_FOUND', 'not-found']],
  [0x801f0015, ['ERROR_FLT_INSTANCE_NOT_FOUND', 'not-found']],
  [0x80370101, ['HCS_E_IMAGE_MISMATCH', 'failed-precondition', "the image's build must suit this host's"]],
  [0x80370102, ['HCS_E_HYPERV_NOT_INSTALLED', 'unsupported-host', 'install the Hyper-V feature']],
  [0x80370105, ['HCS_E_INVALID_STATE', 'failed-precondition']],
  [0x80370106, ['HCS_E_UNEXPECTED_EXIT', 'native']],
  [0x80370107, ['HCS_E_TERMINATED', 'native']],
  [0x80370108, ['HCS_E_CONNECT_FAILED', 'unavailable']],
  [0x80370109, ['HCS_E_CONNECTION_TIMEOUT', 'unavailable']],
  [0x8037010a, ['HCS_E_CONNECTION_CLOSED', 'unavailable']],
  [0x8037010d, ['HCS_E_INVALID_JSON', 'failed-precondition']],
  [0x8037010e, ['HCS_E_SYSTEM_NOT_FOUND', 'not-found']],
  [0x8037010f, ['HCS_E_SYSTEM_ALREADY_EXISTS', 'already-exists']],
  [0x80370110, ['HCS_E_SYSTEM_ALREADY_STOPPED', 'not-found']],
  [0x80370112, ['HCS_E_INVALID_LAYER', 'corrupt']],
  [0x80370114, ['HCS_E_SERVICE_NOT_AVAILABLE', 'unavailable', `start the ${HCS} (sc start vmcompute)`]],
  [0x80370118, ['HCS_E_OPERATION_TIMEOUT', 'unavailable']],
  [0x8037011b, ['HCS_E_ACCESS_DENIED', 'access-denied', ELEVATE]],
  [0x8037011e, ['HCS_E_SERVICE_DISCONNECT', 'unavailable']],
]);

const NTSTATUSES: ReadonlyMap<number, Known> = new Map<number, Known>([
  [0xc000000d, ['STATUS_INVALID_PARAMETER', 'failed-precondition']],
  [0xc0000010, ['STATUS_INVALID_DEVICE_REQUEST', 'unsupported-host']],
  [0xc0000022, ['STATUS_ACCESS_DENIED', 'access-denied', ELEVATE]],
  [0xc0000033, ['STATUS_OBJECT_NAME_INVALID', 'failed-precondition']],
  [0xc0000034, ['STATUS_OBJECT_NAME_NOT_FOUND', 'not-found']],
  [0xc0000035, ['STATUS_OBJECT_NAME_COLLISION', 'already-exists']],
  [0xc000003a, ['STATUS_OBJECT_PATH_NOT_FOUND', 'not-found']],
  [0xc0000043, ['STATUS_SHARING_VIOLATION', 'busy', HOLDER]],
  [0xc000007f, ['STATUS_DISK_FULL', 'no-space']],
  [0xc00000bb, ['STATUS_NOT_SUPPORTED', 'unsupported-host']],
  [0xc0000420, ['STATUS_ASSERTION_FAILURE', 'corrupt', 'the base layer it stands on was removed or changed']],
]);

export interface Status {
  /** The header's name and the number, or the number alone. */
  name: string;
  code: ErrorCode;
  hint: string | undefined;
  /** The Win32 error that it is or carries. */
  win32: number | undefined;
}

const FACILITY_MASK = 0xffff0000;
const FACILITY_WIN32 = 0x80070000;
const FACILITY_HCS = 0x80370000;
const SEVERITY_ERROR_NT = 0xc;
const NT_BIT = 0x10000000;

/** What a returned number means. An HRESULT may carry a Win32 error or an NTSTATUS. `status` is unsigned. */
export function describeStatus(kind: StatusKind, status: number): Status {
  const win32 = win32In(kind, status);
  const known = lookUp(kind, status) ?? (win32 === undefined ? undefined : WIN32[win32]);
  const [name, code, hint] = known ?? [undefined, 'native' as const];
  const number = kind === 'WIN32_ERROR' ? String(status) : `0x${status.toString(16).padStart(8, '0')}`;
  return { name: name === undefined ? number : `${name}, ${number}`, code, hint, win32 };
}

/** The NTSTATUS in an HRESULT made by HRESULT_FROM_NT, or in one that is an NTSTATUS as it came from a driver. */
export function ntstatusIn(kind: StatusKind, status: number): number | undefined {
  if (kind === 'NTSTATUS') return status;
  if (kind === 'WIN32_ERROR' || isHcs(status)) return undefined;
  const plain = (status & ~NT_BIT) >>> 0;
  return plain >>> 28 === SEVERITY_ERROR_NT ? plain : undefined;
}

/** Drivers say in these what the Win32 errors say that callers look for. */
const WIN32_OF_NTSTATUS: ReadonlyMap<number, number> = new Map([
  [0xc0000022, Win32Error.ACCESS_DENIED],
  [0xc0000034, Win32Error.FILE_NOT_FOUND],
  [0xc000003a, Win32Error.PATH_NOT_FOUND],
  [0xc0000043, Win32Error.SHARING_VIOLATION],
  [0xc00000a3, Win32Error.NOT_READY],
]);

function win32In(kind: StatusKind, status: number): number | undefined {
  if (kind === 'WIN32_ERROR') return status;
  const ntstatus = ntstatusIn(kind, status);
  if (ntstatus !== undefined) return WIN32_OF_NTSTATUS.get(ntstatus);
  const carries = kind === 'HRESULT' && (status & FACILITY_MASK) >>> 0 === FACILITY_WIN32;
  return carries ? status & 0xffff : undefined;
}

function lookUp(kind: StatusKind, status: number): Known | undefined {
  if (kind === 'WIN32_ERROR') return WIN32[status];
  const ntstatus = ntstatusIn(kind, status);
  if (ntstatus !== undefined) return NTSTATUSES.get(ntstatus);
  return HRESULTS.get(isHcs(status) ? (FACILITY_HCS | (status & 0xffff)) >>> 0 : status);
}

/** HCS gives its errors with the severity of an HRESULT or, in vmcompute.dll, with that of an NTSTATUS. */
function isHcs(status: number): boolean {
  return (status & 0x3fff0000) >>> 0 === 0x370000;
}
