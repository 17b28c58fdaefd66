import { expect, it } from 'vitest';
import { CimletError, classify } from '../../../src/errors.ts';
import { explain } from '../../../src/hosts/windows/explain.ts';
import { type FailedCall, NativeError } from '../../../src/native/windows/native-error.ts';

const HRESULT_OF = {
  ...{ notFound: 0x80070003, denied: 0x80070005, inUse: 0x80070020, invalid: 0x80070057 },
  ...{ deniedByDriver: 0xc0000022, inUseOfDriver: 0xd0000043 },
};

function failure(status: number, more: Partial<FailedCall> = {}): NativeError {
  const call = { operation: 'activate layer C:\\x', dll: 'vmcompute.dll', function: 'ActivateLayer' };
  return new NativeError({ ...call, kind: 'HRESULT', status, text: undefined, args: [], ...more });
}

const ask = async () => {
  throw new CimletError('unsupported-host', 'not on this build');
};
const restartManager = { processesHolding: ask };
const filters = {
  minifilters: async () => [{ name: 'WdFilter' }, { name: 'wcifs' }] as never,
};

it.each(['denied', 'inUse', 'deniedByDriver', 'inUseOfDriver'] as const)(
  'says which Windows it was and what filters are loaded: %s',
  async (what) => {
    const error = failure(HRESULT_OF[what]);
    const explained = (await explain(error, { filters, restartManager, version: '26100.1' })) as CimletError;
    expect(explained).toMatchObject({ code: error.code, message: error.message, cause: error });
    expect(explained.hint).toContain(error.hint);
    expect(explained.hint).toMatch(/this is Windows 26100\.1; file-system filters loaded: WdFilter, wcifs$/);
  },
);

it('says what a layer call misses that finds no path', async () => {
  const missing = failure(HRESULT_OF.notFound);
  expect(await explain(missing, { filters, restartManager, version: '26100.1' })).toMatchObject({
    code: 'not-found',
    message: missing.message,
    hint: expect.stringContaining('half deleted'),
  });
});

it('sees through what the error was wrapped in', async () => {
  const wrapped = new CimletError('busy', 'dismount: in use', { cause: failure(HRESULT_OF.inUse) });
  expect(await explain(wrapped, { filters, restartManager, version: '26100.1' })).toMatchObject({
    code: 'busy',
    hint: expect.stringContaining('WdFilter'),
  });
});

it.each([
  ['vmcompute.dll', ['[object]', '"C:\\\\snapshots\\\\a"'], 'C:\\snapshots\\a\\sandbox.vhdx'],
  ['virtdisk.dll', ['"C:\\\\blank.vhdx"', '0'], 'C:\\blank.vhdx'],
  ['cimfs.dll', ['"C:\\\\a\\\\layer.bcim"', '"layer.cim"'], 'C:\\a\\layer.bcim'],
  ['kernel32.dll', ['"\\\\\\\\?\\\\C:\\\\blank.vhdx"', '0'], 'C:\\blank.vhdx'],
  ['cimfs.dll', ['"C:\\\\cim-layers"', '"a.cim"'], 'C:\\cim-layers\\a.cim'],
])('asks who holds the file that a call of %s was about', async (dll, args, file) => {
  const asked: string[] = [];
  const processesHolding = async (files: readonly string[]) => {
    asked.push(...files);
    return [];
  };
  await explain(failure(HRESULT_OF.inUse, { dll, args }), {
    filters,
    restartManager: { processesHolding },
    version: '26100.1',
  });
  expect(asked).toEqual([file]);
});

it('explains an error once, though one effect was part of another', async () => {
  const circumstances = { filters, restartManager, version: '26100.1' };
  const once = await explain(failure(HRESULT_OF.denied), circumstances);
  expect(await explain(once, circumstances)).toBe(once);
  const { code, message, hint } = once as CimletError;
  const wrapped = new CimletError(code, `${message}; and then`, { hint, cause: once });
  expect(await explain(wrapped, circumstances)).toBe(wrapped);
});

it('leaves errors of others as they are, and tells one whose circumstances are unknown', async () => {
  const invalid = failure(HRESULT_OF.invalid);
  const bug = new Error('bug');
  expect(await explain(invalid, { filters, restartManager, version: '26100.1' })).toMatchObject({
    code: invalid.code,
    hint: 'this is Windows 26100.1',
  });
  expect(await explain(bug, { filters, restartManager, version: '26100.1' })).toBe(bug);
  const refusing = { minifilters: ask };
  const explained = await explain(failure(HRESULT_OF.denied), {
    filters: refusing,
    restartManager,
    version: '26100.1',
  });
  expect((explained as CimletError).hint).toMatch(/this is Windows 26100\.1$/);
});

it('names who holds a file that Node was refused, though not everybody of many', async () => {
  const refused = Object.assign(new Error('EBUSY: resource busy or locked'), {
    code: 'EBUSY',
    syscall: 'unlink',
    path: 'C:\\root\\x.cim',
  });
  const asked: (readonly string[])[] = [];
  const holding = (count: number) => ({
    processesHolding: async (files: readonly string[]) => {
      asked.push(files);
      return Array.from({ length: count }, (_, index) => ({ processId: index + 1, name: 'scan' })) as never;
    },
  });
  const hintWith = async (count: number) => {
    const circumstances = { filters, restartManager: holding(count), version: '26100.1' };
    return ((await explain(classify(refused, 'remove x.cim'), circumstances)) as CimletError).hint;
  };
  expect(await hintWith(1)).toMatch(/this is Windows 26100\.1; held by scan \(process 1\); file-system/);
  expect(await hintWith(12)).toMatch(/scan \(process 10\) and 2 more; file-system/);
  expect(asked).toEqual([['C:\\root\\x.cim'], ['C:\\root\\x.cim']]);
});
