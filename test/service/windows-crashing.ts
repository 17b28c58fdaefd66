/** A service that runs into a bug once it was started, for windows-crash-child.ts. Its name is the last argument. */

import { existsSync } from 'node:fs';
import { enterWindowsService } from '../../src/service/windows-service-process.ts';

const service = await enterWindowsService(process.argv.at(-1) ?? '');
service.ready();
setInterval(() => {
  if (existsSync('C:\\crash')) throw new Error('a bug');
}, 50);
