import { resolve } from 'node:path';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

// Hundreds of job threads and programs start from sources: stripped, looked for and compiled once, not by each.
process.env.NODE_COMPILE_CACHE ??= resolve(import.meta.dirname, 'node_modules/.cache/cimlet-tests');
const loader = JSON.stringify(resolve(import.meta.dirname, 'test/support/modules/load.cjs'));
process.env.NODE_OPTIONS = `${process.env.NODE_OPTIONS ?? ''} --require ${loader}`;

/** Minutes each: begun last, one of them would run alone at the end. */
const SLOW = [
  'conformance/windows-process',
  'conformance/embedded-host',
  'hosts/windows/killed',
  'e2e/drift',
  'hosts/embedded/crash',
  'e2e/block',
  'e2e/crash',
  'cli/commands',
  'e2e/plan',
  'conformance/snapshotter',
  'hosts/windows/',
  'service/windows-service',
  'native/doubles',
];

class SlowestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const index = SLOW.findIndex((name) => moduleId.includes(name));
      return index < 0 ? SLOW.length : index;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: 'test/support/modules/archive.ts',
    pool: 'forks',
    // One more than there are cores where CI runs: tests of other programs wait a lot.
    maxWorkers: 3,
    sequence: { sequencer: SlowestFirst },
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // In CI a test that fails once is run again, and reported as retried; at home it fails.
    retry: process.env.CI ? 1 : 0,
  },
});
