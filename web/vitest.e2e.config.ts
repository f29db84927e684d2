import { defineConfig } from 'vitest/config';

// One file after another: they share two cores with the farms that they start.
export default defineConfig({
  test: {
    include: ['e2e/**/*.e2e.ts'],
    environment: 'node',
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    retry: 1, // a browser beside two busy workers; what needed it is in the report, and is to be mended
  },
});
