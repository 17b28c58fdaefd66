/** Command lines as Windows takes them apart, for windows-service.test.ts: prints those that come back as something else. */

import fc from 'fast-check';
import { C, out, string16At } from '../../src/native/library.ts';
import { HANDLE } from '../../src/native/windows/ctypes.ts';
import { Dlls } from '../../src/native/windows/dll.ts';
import { serviceCommandLine } from '../../src/service/command-line.ts';

const shell32 = new Dlls().open('shell32.dll', {
  CommandLineToArgvW: [HANDLE, [C.str16, out(C.int)]],
});
const memory = new Dlls().open('kernel32.dll', { RtlMoveMemory: [C.void, [C.pointer, HANDLE, C.size_t]] });

function takeApart(line: string): string[] {
  const count = [0];
  const list = shell32.callNow('take a command line apart', 'CommandLineToArgvW', line, count);
  const addresses = Buffer.alloc((count[0] ?? 0) * 8);
  memory.attemptNow('RtlMoveMemory', addresses, list, addresses.length);
  return Array.from({ length: count[0] ?? 0 }, (_, index) =>
    string16At(addresses.readBigUInt64LE(index * 8)),
  );
}

const argument = fc.string({ unit: fc.constantFrom('a', 'é', ' ', '"', '\\', "'", '^', '&'), maxLength: 12 });
const wanted = fc.tuple(
  fc.constantFrom('C:\\Program Files\\x\\node.exe', 'C:\\x.exe', "C:\\it's\\x.exe"),
  fc.array(argument, { maxLength: 6 }),
);
fc.assert(
  fc.property(wanted, ([program, args]) => {
    const parts = takeApart(serviceCommandLine([program, ...args]));
    return JSON.stringify(parts) === JSON.stringify([program, ...args]);
  }),
  { numRuns: 2000 },
);
console.log('the same');
