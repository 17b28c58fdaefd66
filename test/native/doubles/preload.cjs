/** Runs first in every Windows process of a test: puts what Wine's kernel32 leaves undone about volumes in place. */

const { isMainThread } = require('node:worker_threads');

if (isMainThread) process.dlopen({ exports: {} }, `${process.env.SystemRoot}\\System32\\volumes.dll`);
