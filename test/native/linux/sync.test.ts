import { tmpdir } from 'node:os';
import { expect, it } from 'vitest';
import { syncFilesystem } from '../../../src/native/linux/sync.ts';

it.runIf(process.platform === 'linux')(
  'syncs the file system of a path, and says what is not there',
  async () => {
    await syncFilesystem(tmpdir());
    await expect(syncFilesystem('/not/there')).rejects.toThrow(
      expect.objectContaining({
        code: 'not-found',
        message: expect.stringMatching(/^sync the file system of \/not\/there: /),
      }),
    );
  },
);
