/** Names of files made and taken away in a Windows process, for file-names.test.ts. */

import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { backupFiles } from '../../../src/native/windows/backup.ts';
import { Dlls } from '../../../src/native/windows/dll.ts';
import { printCases } from './print-cases.ts';

const files = backupFiles(new Dlls());
const READ_ONLY = 1;

function directory(name: string): string {
  const path = `C:\\${name}`;
  files.makeDirectory(path);
  return path;
}

const CASES: Readonly<Record<string, () => unknown>> = {
  link: () => {
    const root = directory('link');
    writeFileSync(`${root}\\one`, 'same');
    files.link(`${root}\\one`, `${root}\\deux à`);
    return [
      readFileSync(`${root}\\deux à`, 'utf8'),
      statSync(`${root}\\one`).ino === statSync(`${root}\\deux à`).ino,
    ];
  },
  linkTwice: () => {
    const root = directory('twice');
    for (const name of ['a', 'b']) writeFileSync(`${root}\\${name}`, name);
    files.link(`${root}\\a`, `${root}\\b`);
  },
  linkNothing: () => files.link('C:\\nothing', 'C:\\link-to-nothing'),
  directoryTwice: () => files.makeDirectory(directory('again')),
  directoryBelowNothing: () => files.makeDirectory('C:\\nowhere\\below'),
  long: () => {
    let path = directory('long');
    for (let depth = 0; depth < 6; depth++) {
      path += `\\${'d'.repeat(60)}`;
      files.makeDirectory(path);
    }
    writeFileSync(`\\\\?\\${path}\\file`, 'deep');
    files.link(`${path}\\file`, `${path}\\again`);
    const names = readdirSync(`\\\\?\\${path}`).sort();
    files.remove('C:\\long');
    return { names, isThere: existsSync('C:\\long') };
  },
  remove: () => {
    const root = directory('remove');
    writeFileSync('C:\\beside', 'kept');
    files.makeDirectory(`${root}\\below`);
    files.link('C:\\beside', `${root}\\below\\other`);
    writeFileSync(`${root}\\read-only`, 'read-only');
    files.setBasics(`${root}\\read-only`, {
      ...{ creationTime: 0n, lastAccessTime: 0n, lastWriteTime: 0n, changeTime: 0n },
      attributes: READ_ONLY,
    });
    files.remove(root);
    files.remove(root);
    return { isThere: existsSync(root), beside: readFileSync('C:\\beside', 'utf8') };
  },
};

await printCases(CASES);
