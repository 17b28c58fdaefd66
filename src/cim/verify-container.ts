/** Every byte of a container: the parts by their digests, the data by its object IDs, and zeros wherever nothing is. */

import { readBytes, readPieces } from './byte-source.ts';
import type { Container } from './container.ts';
import { type ContainedCim, type ContainerPart, PartKind, type Span } from './container-format.ts';
import { type FaultList, withBase } from './faults.ts';
import { encodeRegionHeader, REGION_HEADER_SIZE } from './format.ts';
import { treeGeometry } from './merkle.ts';
import { ObjectIdFile } from './object-ids.ts';
import { checkEnd } from './seal.ts';

const USED_OF_HEADER = 512;

export function verifyContainer(container: Container, faults: FaultList): void {
  new ContainerVerifier(container, faults).run();
}

class ContainerVerifier {
  readonly #container: Container;
  readonly #faults: FaultList;

  constructor(container: Container, faults: FaultList) {
    this.#container = container;
    this.#faults = faults;
  }

  run(): void {
    const { path, header, directory, seal } = this.#container;
    const used = [{ offset: 0, length: USED_OF_HEADER }, header.directory, ...directory.retired];
    directory.retired.forEach((span, i) => {
      this.#digest(span, `retired directory ${i}`);
    });
    for (const cim of directory.cims)
      for (const part of cim.parts) {
        const what = `part ${part.kind}.${part.index} of ${cim.name}`;
        if (part.digest !== undefined) {
          this.#digest({ ...part, digest: part.digest }, what);
          used.push(part);
        } else this.#faults.collect(() => used.push(...this.#usedOfData(cim, part)));
      }
    this.#zerosBetween(used);
    this.#faults.collect(() =>
      checkEnd(path, seal === undefined ? header.end : treeGeometry(seal.sealedLength).end),
    );
  }

  #digest({ offset, length, digest }: Span, what: string): void {
    const found = this.#faults.collect(() => this.#container.digest({ offset, length }, what));
    if (found !== undefined && !found.equals(digest)) this.#fault(offset, `${what} does not have its digest`);
  }

  /** The objects of a data region, whose digests are checked with the image, and the region's header. */
  #usedOfData(cim: ContainedCim, part: ContainerPart): { offset: number; length: number }[] {
    const { source, path } = this.#container;
    const header = readBytes(source, part.offset, REGION_HEADER_SIZE, `a region's header`);
    if (!header.equals(encodeRegionHeader(part)))
      this.#fault(part.offset, `the header of region ${part.index} of ${cim.name} is not as it is written`);
    const used = [{ offset: part.offset, length: REGION_HEADER_SIZE }];
    const stored = cim.parts.find(({ kind, index }) => kind === PartKind.objectId && index === part.index);
    if (stored === undefined) return used;
    const bytes = this.#container.read(stored, 'object IDs');
    const ids = withBase(stored.offset, () => new ObjectIdFile(path, bytes));
    for (let i = 0; i < ids.count; i++) {
      const { offset, length } = ids.entry(i);
      used.push({ offset: part.offset + offset, length });
    }
    return used;
  }

  #zerosBetween(used: { offset: number; length: number }[]): void {
    let end = 0;
    for (const { offset, length } of used.sort((a, b) => a.offset - b.offset)) {
      this.#zeros(end, offset);
      end = Math.max(end, offset + length);
    }
    this.#zeros(end, this.#container.header.end);
  }

  #zeros(start: number, end: number): void {
    if (start >= end) return;
    this.#faults.collect(() => {
      let position = start;
      for (const piece of readPieces(this.#container.source, start, end - start, 'padding')) {
        const at = piece.findIndex((byte) => byte !== 0);
        if (at >= 0) {
          this.#fault(position + at, 'there is something where nothing belongs');
          return;
        }
        position += piece.length;
      }
    });
  }

  #fault(offset: number, message: string): void {
    this.#faults.add({ file: this.#container.path, offset, message });
  }
}
