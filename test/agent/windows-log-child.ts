/** Writes a log as a Windows process does, for log-file.test.ts: to a disk that is full, or while a file of it is read. */

import { LogFile } from '../../src/agent/log-file.ts';
import { Dlls } from '../../src/native/windows/dll.ts';
import { FileAccess, FileShare, Kernel32 } from '../../src/native/windows/kernel32.ts';

function writeToFullDisk(): void {
  const log = new LogFile('C:\\full\\x.log');
  log.write('first\n');
  log.write(`${'x'.repeat(32_768)}\n`);
  log.write('last\n');
  log.close();
}

async function writeBesideReader(name: string): Promise<void> {
  const log = new LogFile(`C:\\${name}\\x.log`, { maxBytes: 200 });
  log.write('line number 10\n');
  // As .NET's FileShare.ReadWrite has it, and with it Get-Content: to be written on, but not renamed.
  const share = FileShare.read | FileShare.write;
  const kernel32 = new Kernel32(new Dlls());
  const reader = await kernel32.createFile(`C:\\${name}\\${name}`, { access: FileAccess.read, share });
  for (let index = 1; index < 20; index++) log.write(`line number ${index + 10}\n`);
  kernel32.closeHandle(Number(reader));
  log.write('without a reader\n');
  log.close();
}

const [name = ''] = process.argv.slice(-1);
if (name === 'full') writeToFullDisk();
else await writeBesideReader(name);
