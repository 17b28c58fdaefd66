import { NativeError } from '../../../src/native/windows/native-error.ts';

/**
 * Runs the cases named on the command line, in that order, and prints, under each one's name, what it gave or the error
 * that it threw.
 */
export async function printCases(cases: Readonly<Record<string, () => unknown>>): Promise<void> {
  const results: Record<string, unknown> = {};
  for (const name of process.argv.slice(2)) {
    try {
      results[name] = { value: await cases[name]?.() };
    } catch (error) {
      const { message, code, hint } = error as { message: string; code?: string; hint?: string };
      const native = error instanceof NativeError ? { ...error } : {};
      results[name] = { error: { ...native, message, code, hint } };
    }
  }
  console.log(JSON.stringify(results));
}
