import { expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import { cleanUpAfterFailure } from '../../src/hosts/snapshot-folders.ts';
import { context } from './embedded/fixture.ts';

it('a clean-up that fails is warned of, and does not stand in for the failure it followed', async () => {
  const warnings: string[] = [];
  const warn = (message: string) => warnings.push(message);
  await cleanUpAfterFailure({ ...context, warn }, async () => {
    throw new CimletError('access-denied', 'remove /r/snapshots/tmp-1: not permitted');
  });
  expect(warnings).toEqual(['remove /r/snapshots/tmp-1: not permitted']);
});
