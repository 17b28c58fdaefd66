import { readFileSync, writeFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { countFaults } from '../../src/cim/faults.ts';
import { sealContainer, verifySeal } from '../../src/cim/seal.ts';
import { containerOf, writeBlock } from './block-fixture.ts';
import { patternBytes, putFile, temporaryDirectories } from './fixture.ts';

const temporary = temporaryDirectories();

it('lists the first hundred faults of a file that is damaged all over, and says how many more there are', async () => {
  const PAGES = 500;
  const file = containerOf(
    writeBlock(temporary(), 1, (writer) => putFile(writer, 'large', patternBytes(PAGES * 4096, 1))),
  );
  await sealContainer(file);
  const bytes = readFileSync(file);
  for (let page = 1; page <= PAGES; page++) bytes.writeUInt8(bytes.readUInt8(page * 4096) ^ 1, page * 4096);
  writeFileSync(file, bytes);
  const faults = await verifySeal(file);
  expect(faults).toHaveLength(101);
  expect(faults.slice(0, 100).map(({ offset }) => offset)).toEqual(
    Array.from({ length: 100 }, (_, index) => (index + 1) * 4096),
  );
  expect(faults[100]).toEqual({
    file,
    offset: PAGES * 4096,
    message: '400 more faults up to here',
    unlisted: 400,
  });
  expect(countFaults(faults)).toBe(PAGES);
});
