import { resolve } from 'node:path';
import { defineConfig } from 'vitest/config';

// Hundreds of job threads and programs start from sources: their types are stripped once, not by each.
process.env.NODE_COMPILE_CACHE ??= resolve(import.meta.dirname, 'node_modules/.cache/cimlet-tests');

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
