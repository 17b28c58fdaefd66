import { CimletError, isErrorCode } from '../../errors.ts';

/**
 * Observing compares sizes only, so damage within a committed layer shows when it is read. Adds to a `corrupt` error
 * how the layer is got built anew; any other error is returned as it is.
 */
export function withRepairHint(error: unknown, cim: string): unknown {
  if (!isErrorCode(error, 'corrupt') || error.hint !== undefined) return error;
  return new CimletError('corrupt', error.message, {
    hint: `a committed layer is damaged: find the file with cimlet cim verify ${cim}, remove it and apply again`,
    cause: error,
  });
}
