/** A CimWriter that keeps everything in memory: what a forked CIM should hold after a layer, without its format. */

import {
  type CimStream,
  type DirectoryEntry,
  FileAttribute,
  type FileInfo,
  type FileMetadata,
} from '../../src/cim/types.ts';
import { CimletError } from '../../src/errors.ts';
import type { CimWriter } from '../../src/layers/cim-writer.ts';
import { foldName } from '../../src/layers/layer-tree.ts';

export interface MemoryFile {
  id: number;
  metadata: FileMetadata;
  data: Buffer;
  streams: Map<string, Buffer>;
  /** Directories only. */
  children?: Map<string, { name: string; file: MemoryFile }>;
}

export class MemoryCimWriter implements CimWriter {
  #nextId = 2;
  readonly #open = new Set<string>();
  readonly root: MemoryFile = {
    id: 1,
    metadata: {
      attributes: FileAttribute.directory,
      size: 0,
      creationTime: 0n,
      lastWriteTime: 0n,
      changeTime: 0n,
      lastAccessTime: 0n,
    },
    data: Buffer.alloc(0),
    streams: new Map(),
    children: new Map(),
  };

  createFile(path: string, metadata: FileMetadata): CimStream {
    const isDirectory = (metadata.attributes & FileAttribute.directory) !== 0;
    const existing = this.find(path);
    if (isDirectory && existing?.children !== undefined) {
      existing.metadata = { ...metadata };
      existing.streams.clear();
      if (path !== '') this.#put(path, existing);
      return this.#stream(path, 0, () => undefined);
    }
    if (existing !== undefined && isDirectory !== (existing.children !== undefined)) {
      throw new CimletError('already-exists', `create ${path}: something of another kind is there`);
    }
    const file: MemoryFile = {
      id: this.#nextId++,
      metadata: { ...metadata },
      data: Buffer.alloc(0),
      streams: new Map(),
      ...(isDirectory ? { children: new Map() } : {}),
    };
    this.#put(path, file);
    return this.#stream(path, metadata.size, (data) => {
      file.data = data;
    });
  }

  createAlternateStream(path: string, name: string, size: number): CimStream {
    const file = this.#must(path);
    return this.#stream(`${path}:${name}`, size, (data) => file.streams.set(name, data));
  }

  createHardLink(path: string, existing: string): void {
    const file = this.#must(existing);
    if (file.children !== undefined)
      throw new CimletError('failed-precondition', `${existing} is a directory`);
    this.#put(path, file);
  }

  deletePath(path: string): boolean {
    const [parent, name] = this.#split(path);
    return this.find(parent)?.children?.delete(foldName(name)) ?? false;
  }

  stat(path: string): FileInfo | undefined {
    const file = this.find(path);
    if (file === undefined) return undefined;
    const reparse = file.metadata.reparseData;
    return {
      ...file.metadata,
      id: file.id,
      isDirectory: file.children !== undefined,
      reparseTag: reparse === undefined ? 0 : Buffer.from(reparse).readUInt32LE(0),
    };
  }

  entries(path: string): DirectoryEntry[] {
    return [...(this.#must(path).children?.values() ?? [])].map(({ name, file }) => ({ name, id: file.id }));
  }

  find(path: string): MemoryFile | undefined {
    let file: MemoryFile | undefined = this.root;
    if (path === '') return file;
    for (const name of path.split('/')) file = file?.children?.get(foldName(name))?.file;
    return file;
  }

  /** Every path below the root with its file, sorted. */
  list(): [string, MemoryFile][] {
    const found: [string, MemoryFile][] = [];
    const pending: [string, MemoryFile][] = [['', this.root]];
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      for (const { name, file } of next[1].children?.values() ?? []) {
        const path = next[0] === '' ? name : `${next[0]}/${name}`;
        found.push([path, file]);
        pending.push([path, file]);
      }
    }
    return found.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  }

  /** Paths only. */
  paths(): string[] {
    return this.list().map(([path]) => path);
  }

  /** Content of a file as text. */
  text(path: string): string | undefined {
    return this.find(path)?.data.toString();
  }

  #put(path: string, file: MemoryFile): void {
    const [parent, name] = this.#split(path);
    const directory = this.#must(parent);
    if (directory.children === undefined) throw new CimletError('not-found', `${parent} is no directory`);
    directory.children.set(foldName(name), { name, file });
  }

  #must(path: string): MemoryFile {
    const file = this.find(path);
    if (file === undefined) throw new CimletError('not-found', `${path} is not in the image`);
    return file;
  }

  #split(path: string): [string, string] {
    const slash = path.lastIndexOf('/');
    return slash < 0 ? ['', path] : [path.slice(0, slash), path.slice(slash + 1)];
  }

  #stream(path: string, size: number, done: (data: Buffer) => void): CimStream {
    if (this.#open.size > 0) throw new Error(`${path}: ${[...this.#open]} is still open`);
    this.#open.add(path);
    const chunks: Buffer[] = [];
    return {
      write: (data) => {
        chunks.push(Buffer.from(data));
      },
      close: () => {
        const data = Buffer.concat(chunks);
        if (data.length !== size)
          throw new CimletError('failed-precondition', `${path}: ${data.length} of ${size}`);
        this.#open.delete(path);
        done(data);
      },
    };
  }
}
