import { defineConfig } from 'vitest/config';

// One file after another: they share two cores with the farms that they start.
export default defineConfig({
  test: {
    include: ['e2e/**/*.e2e.ts'],
    environment: 'node',
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    retry: 2, // a machine that is busy with a build may be slow once; what fails is told each time
  },
});
