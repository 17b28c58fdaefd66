import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // In CI a test that fails once is run again, and reported as retried; at home it fails.
    retry: process.env.CI === undefined ? 0 : 1,
  },
});
