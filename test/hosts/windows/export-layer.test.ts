/** Exports take no lock: several processes may be at one layer. */

import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { openWindowsWorld, runWindowsProcess } from '../../support/windows.ts';
import { canRunWindows } from '../../support/windows-tools.ts';

it.runIf(canRunWindows())(
  'two processes that export one layer leave each other alone',
  async () => {
    const world = await openWindowsWorld();
    onTestFinished(() => world.close());
    const script = join(import.meta.dirname, 'export-layer.ts');
    const done = { code: 0, stdout: '', stderr: '' };
    expect(await runWindowsProcess(world, { script, args: ['C:\\alone.tar'] })).toEqual(done);

    // The first one has both trees mounted, and reads them when the second one is done.
    await world.plan([{ call: 'CimMountImage', nth: 2, action: 'hang-after' }]);
    const first = await world.start({ script, args: ['C:\\first.tar'] });
    await world.untilCall(({ fault }) => fault?.startsWith('hangs') === true);
    expect(await runWindowsProcess(world, { script, args: ['C:\\second.tar'] })).toEqual(done);
    await world.release();
    expect(await first.result()).toEqual(done);

    const tar = (name: string) => readFile(join(world.drive, `${name}.tar`));
    const alone = await tar('alone');
    for (const name of ['first', 'second']) expect((await tar(name)).length).toBe(alone.length);
    const devices = await readdir(join(world.drive, '../dosdevices'));
    expect(devices.filter((name) => name.startsWith('volume{'))).toEqual([]);
    expect(await readdir(join(world.drive, 'store/exports'))).toEqual([]);
  },
  120_000,
);
