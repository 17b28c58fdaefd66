import { setFlagsFromString } from 'node:v8';
import { expect, test } from 'vitest';
import { isErrorCode } from '../../../src/errors.ts';

// With so small a budget V8 13 often kills this process within a few hundred threads that strip types, unless run-job.ts prevents it.
test('hundreds of job threads come and go without killing the process', async () => {
  setFlagsFromString('--wasm-wrapper-tiering-budget=2');
  const { runJob } = await import('../../../src/hosts/embedded/run-job.ts');
  const context = { signal: new AbortController().signal };
  let started = 0;
  let refused = 0;
  const runSome = async (): Promise<void> => {
    while (started++ < 100) {
      await runJob(
        {
          kind: 'export',
          cim: '/nowhere/layer.cim',
          file: '/nowhere/layer.tar',
          temporary: '/nowhere/layer.part',
          bytes: 0,
        },
        context,
      ).catch((error: unknown) => {
        if (!isErrorCode(error, 'not-found')) throw error;
        refused++;
      });
    }
  };
  await Promise.all([runSome(), runSome()]);
  expect(refused).toBe(100);
});
