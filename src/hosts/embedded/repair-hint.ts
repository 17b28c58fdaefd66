import { CimletError, isErrorCode } from '../../errors.ts';

/**
 * Of layers without a seal, observing compares sizes only: damage within shows when it is read. Adds to a `corrupt` error
 * how the layer is got built anew; any other error is returned as it is. `cims` are those that may be at fault.
 */
export function withRepairHint(error: unknown, cims: readonly string[]): unknown {
  if (!isErrorCode(error, 'corrupt') || error.hint !== undefined) return error;
  const cim = cims.find((path) => error.message.includes(path)) ?? cims[0];
  return new CimletError('corrupt', error.message, {
    hint: `a committed layer is damaged: find the file with cimlet cim verify ${cim}, remove it and apply again`,
    cause: error,
  });
}
