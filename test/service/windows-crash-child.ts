/** Installs the service of windows-crashing.ts, has it crash, and ends when its process has. For windows-service.test.ts. */

import { writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { createWindowsServices } from '../../src/service/windows-services.ts';

const services = createWindowsServices();
const { signal } = new AbortController();
const script = fileURLToPath(new URL('windows-crashing.ts', import.meta.url));
await services.install(
  { name: 'crashing', command: [process.execPath, script], root: 'C:\\', stopTimeoutMs: 1000 },
  signal,
);
const { processId = 0 } = await services.status('crashing', signal);
process.kill(processId, 0);
writeFileSync('C:\\crash', '');
for (;;) {
  try {
    process.kill(processId, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    break;
  }
  await pause(50);
}
console.log('its process has ended');
