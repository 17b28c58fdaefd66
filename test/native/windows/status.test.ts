import { describe, expect, it } from 'vitest';
import { disposition } from '../../../src/errors.ts';
import { isWin32Error, NativeError } from '../../../src/native/windows/native-error.ts';
import { describeStatus, ntstatusIn, type StatusKind } from '../../../src/native/windows/status.ts';

describe('what error numbers mean', () => {
  it.each<[StatusKind, number, string, string]>([
    ['WIN32_ERROR', 5, 'access-denied', 'ERROR_ACCESS_DENIED, 5'],
    ['HRESULT', 0x80070005, 'access-denied', 'ERROR_ACCESS_DENIED, 0x80070005'],
    ['HRESULT', 0xd0000022, 'access-denied', 'STATUS_ACCESS_DENIED, 0xd0000022'],
    ['NTSTATUS', 0xc0000022, 'access-denied', 'STATUS_ACCESS_DENIED, 0xc0000022'],
    ['HRESULT', 0x80070020, 'busy', 'ERROR_SHARING_VIOLATION, 0x80070020'],
    ['HRESULT', 0x80070015, 'unavailable', 'ERROR_NOT_READY, 0x80070015'],
    ['HRESULT', 0x8007048f, 'unavailable', 'ERROR_DEVICE_NOT_CONNECTED, 0x8007048f'],
    ['HRESULT', 0x8007007b, 'failed-precondition', 'ERROR_INVALID_NAME, 0x8007007b'],
    ['HRESULT', 0xc0000420, 'corrupt', 'STATUS_ASSERTION_FAILURE, 0xc0000420'],
    ['HRESULT', 0x80370114, 'unavailable', 'HCS_E_SERVICE_NOT_AVAILABLE, 0x80370114'],
    ['HRESULT', 0xc037010e, 'not-found', 'HCS_E_SYSTEM_NOT_FOUND, 0xc037010e'],
    // What there is to detach a filter from is gone.
    ['HRESULT', 0x801f0015, 'not-found', 'ERROR_FLT_INSTANCE_NOT_FOUND, 0x801f0015'],
    ['WIN32_ERROR', 112, 'no-space', 'ERROR_DISK_FULL, 112'],
    ['HRESULT', 0x80078888, 'native', '0x80078888'],
    ['WIN32_ERROR', 49999, 'native', '49999'],
  ])('%s %i', (kind, status, code, name) => {
    expect(describeStatus(kind, status)).toMatchObject({ code, name });
  });

  it('finds the Win32 error and the NTSTATUS in an HRESULT', () => {
    expect(describeStatus('HRESULT', 0x8007048f).win32).toBe(1167);
    expect(describeStatus('HRESULT', 0xd0000043).win32).toBe(32);
    expect(describeStatus('HRESULT', 0xc0000022).win32).toBe(5);
    expect(describeStatus('HRESULT', 0xc0000420).win32).toBeUndefined();
    expect(ntstatusIn('HRESULT', 0xd0000043)).toBe(0xc0000043);
    expect(ntstatusIn('HRESULT', 0x80070005)).toBeUndefined();
    expect(ntstatusIn('HRESULT', 0xc037010e)).toBeUndefined();
    expect(ntstatusIn('WIN32_ERROR', 0xc0000043)).toBeUndefined();
  });

  it('retries what passes by itself, and stalls on the rest', () => {
    const next = (status: number) => disposition(describeStatus('WIN32_ERROR', status).code);
    expect([21, 32, 112, 1167, 1450].map(next)).toEqual(new Array(5).fill('retry'));
    expect([2, 5, 50, 1314, 1392].map(next)).toEqual(new Array(5).fill('stall'));
  });
});

describe('a failed call', () => {
  const error = new NativeError({
    operation: 'mount C:\\a.cim',
    dll: 'cimfs.dll',
    function: 'CimMountImage',
    kind: 'HRESULT',
    status: 0x80070020,
    text: 'It is being used by another process.',
    args: ['"C:\\\\"'],
  });

  it('says what, to what, why, and what to do', () => {
    expect(error.message).toBe(
      'mount C:\\a.cim: It is being used by another process (CimMountImage in cimfs.dll: ERROR_SHARING_VIOLATION, 0x80070020)',
    );
    expect(error.hint).toContain('antivirus');
    expect(error.code).toBe('busy');
  });

  it('is told by its Win32 number', () => {
    expect(isWin32Error(error, 5, 32)).toBe(true);
    expect(isWin32Error(error, 5)).toBe(false);
    expect(isWin32Error(new Error('another'), 32)).toBe(false);
  });
});
