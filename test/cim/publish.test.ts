import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { publishCim } from '../../src/cim/publish.ts';
import { openCim } from '../../src/cim/reader.ts';
import { createCimWriter } from '../../src/cim/writer.ts';
import { hasTool, isRoot, requireOrSkip } from '../support/requirements.ts';
import { fileMetadata, GUIDS, patternBytes, putFile, temporaryDirectories, writeImage } from './fixture.ts';

const temporary = temporaryDirectories();
const GUID = GUIDS[0];

/** Finished, not published. */
function writeFinished(directory: string) {
  const writer = createCimWriter({ directory, name: 'x', regionGuid: GUID });
  putFile(writer, 'file', 'content');
  return writer.finish();
}

describe('publishCim', () => {
  it('gives a finished image its names', () => {
    const directory = temporary();
    const { files, bytes, fileCount } = writeFinished(directory);
    expect(readdirSync(directory).every((name) => name.startsWith('tmp-'))).toBe(true);
    publishCim(directory, 'x', GUID);
    publishCim(directory, 'x', GUID);
    expect(readdirSync(directory).sort()).toEqual(files.map(({ name }) => name).sort());
    for (const { name, size } of files) expect(statSync(join(directory, name)).size).toBe(size);
    expect(bytes).toBe(files.reduce((sum, { size }) => sum + size, 0));
    expect(fileCount).toBe(1);
  });

  it('goes on where a crash stopped it', () => {
    const directory = temporary();
    writeFinished(directory);
    renameSync(join(directory, `tmp-region_${GUID}_0`), join(directory, `region_${GUID}_0`));
    publishCim(directory, 'x', GUID);
    openCim(join(directory, 'x.cim')).close();
  });

  it('publishes no .cim whose regions are missing', () => {
    const directory = temporary();
    expect(() => publishCim(directory, 'x', GUID)).toThrow(expect.objectContaining({ code: 'not-found' }));
    writeFinished(directory);
    renameSync(join(directory, `tmp-region_${GUID}_1`), join(directory, 'elsewhere'));
    expect(() => publishCim(directory, 'x', GUID)).toThrow(expect.objectContaining({ code: 'not-found' }));
    expect(readdirSync(directory)).not.toContain('x.cim');
  });
});

describe('a writer', () => {
  it('removes everything when it is closed unfinished, and starts over what a dead one left', () => {
    const directory = temporary();
    writeFileSync(join(directory, `tmp-region_${GUID}_1`), patternBytes(100_000, 3));
    const writer = createCimWriter({ directory, name: 'x', regionGuid: GUID });
    putFile(writer, 'file', patternBytes(5000, 1));
    writer.close();
    writer.close();
    expect(readdirSync(directory)).toEqual([]);
    writeFinished(directory);
    publishCim(directory, 'x', GUID);
    const first = readFileSync(join(directory, `region_${GUID}_2`));
    writeFinished(directory);
    publishCim(directory, 'x', GUID);
    expect(readFileSync(join(directory, `region_${GUID}_2`))).toEqual(first);
  });

  it('leaves nothing of what it took back', () => {
    const directory = temporary();
    const data = patternBytes(3_000_000, 5);
    const finished = writeImage(directory, 0, (writer) => {
      for (const path of ['a', 'b']) {
        const stream = writer.createFile(path, fileMetadata(data.length));
        for (let done = 0; done < data.length; done += 100_000)
          stream.write(data.subarray(done, done + 100_000));
        stream.close();
      }
    });
    expect(finished.files.find(({ name }) => name === `region_${GUID}_1`)?.size).toBe(4096 + 3_002_368);
    const region = readFileSync(join(directory, `region_${GUID}_1`));
    expect(region.subarray(4096, 4096 + data.length).equals(data)).toBe(true);
    expect(region.subarray(4096 + data.length).every((byte) => byte === 0)).toBe(true);
  });

  it.runIf(requireOrSkip('root and mount', isRoot && hasTool('mount')))(
    'reports a full disk and cleans up',
    () => {
      const directory = join(temporary(), 'small');
      mkdirSync(directory);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', directory]);
      try {
        const writer = createCimWriter({ directory, name: 'x', regionGuid: GUID });
        const fill = () => {
          for (let i = 0; i < 10; i++) putFile(writer, `file${i}`, patternBytes(1_000_000, i));
          writer.finish();
        };
        expect(fill).toThrow(expect.objectContaining({ code: 'no-space' }));
        writer.close();
        expect(readdirSync(directory)).toEqual([]);
      } finally {
        execFileSync('umount', [directory]);
      }
    },
  );
});
