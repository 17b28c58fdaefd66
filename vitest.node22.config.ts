/**
 * What Node 22 runs of the suite besides Node 24: all but what runs in other Nodes whichever runs the tests. Windows
 * processes are always Node 22 for Windows, and the package is tried on both Nodes each time.
 */

import { globSync, readFileSync } from 'node:fs';
import { mergeConfig } from 'vitest/config';
import suite from './vitest.config.ts';

const tests = globSync('test/**/*.test.ts', { cwd: import.meta.dirname });
const startsWindowsProcesses = (test: string) =>
  /from '.*\/support\/windows\.ts'/.test(readFileSync(test, 'utf8'));

export default mergeConfig(suite, {
  test: { exclude: [...tests.filter(startsWindowsProcesses), 'test/cli/package.test.ts'] },
});
