/** Syncs one git source: `sync-child.ts <world> <cache>`, its configuration in `<world>/config.json`. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createGitSource, type GitSourceConfig } from '../../src/sources/git-source.ts';

const [world = '', cache = ''] = process.argv.slice(2);
const config = JSON.parse(readFileSync(join(world, 'config.json'), 'utf8')) as GitSourceConfig;
const source = createGitSource(config, { baseDirectory: world, cacheDirectory: join(world, cache) });
await source.sync(new AbortController().signal);
await source.close();
