/** A place for one test of the real program: images, manifests, a root, mount points, and things it must not touch. */

import { createHash } from 'node:crypto';
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, onTestFinished } from 'vitest';
import type { CommittedLayer, HostState } from '../../src/hosts/host.ts';
import type { Compression } from '../../src/images/decode.ts';
import { type WrittenImage, writeOciLayout } from '../../src/images/layout-writer.ts';
import type { Platform } from '../../src/images/types.ts';
import type { Plan, PlannedAction } from '../../src/reconciler/types.ts';
import { TarWriter } from '../../src/tar/tar-writer.ts';
import { LAYER_TIME, type LayerItem, layerItems } from '../support/host-layers.ts';
import { unmountBelow } from '../support/mounts.ts';
import { expectProgram, type ProgramOptions, type ProgramResult } from '../support/program.ts';

export const WINDOWS: Platform = { os: 'windows', architecture: 'amd64', osVersion: '10.0.26100.1742' };

/** Two layers that add, replace and delete; the file of a few pages is shown from the CIM's own data region. */
export const BASE = layerItems({
  'a.txt': 'alpha',
  'dir/b.txt': 'beta',
  'gone.txt': 'x',
  big: 'B'.repeat(9000),
});
export const PATCH = layerItems({ 'gone.txt': null, 'dir/c.txt': 'gamma' });

export interface AppOptions {
  image?: string;
  path?: string;
  view?: 'Kernel' | 'Extracted';
  /** Further members of the Mount's spec and metadata, as YAML flow text. */
  mountSpec?: string;
  mountMetadata?: string;
  chainSpec?: string;
  imageSpec?: string;
}

export class World {
  readonly directory: string;
  readonly root: string;
  readonly mountPoint: string;
  readonly manifest: string;

  /** Gone, with every mount in it, when the test (or whatever `atEnd` stands for) ends. */
  constructor(atEnd: (cleanUp: () => void) => void = onTestFinished) {
    this.directory = realpathSync(mkdtempSync(join(tmpdir(), 'cimlet-e2e-')));
    this.root = this.path('root');
    this.mountPoint = this.path('view');
    this.manifest = this.path('manifests/app.yaml');
    atEnd(() => {
      unmountBelow(this.directory);
      rmSync(this.directory, { recursive: true, force: true });
    });
    this.write('beside/victim', 'must stay as it is');
    this.write('beside/directory/file', 'this too');
  }

  path(...parts: string[]): string {
    return join(this.directory, ...parts);
  }

  write(name: string, content: string | Uint8Array): string {
    const file = this.path(name);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, content);
    return file;
  }

  /** An OCI layout at `images/<name>`, of layers as entries or as whole tars, base first. */
  async image(
    name: string,
    layers: readonly (readonly LayerItem[] | Buffer)[],
    options: { platform?: Platform; compression?: Compression } = {},
  ): Promise<WrittenImage> {
    const { platform = WINDOWS, compression = 'gzip' } = options;
    const tars = layers.map((layer) => ({
      tar: [Buffer.isBuffer(layer) ? layer : tarOf(layer)],
      compression,
    }));
    const [written] = await writeOciLayout(this.path('images', name), { layers: tars, platform });
    return written!;
  }

  blobFile(digest: string, image = 'app'): string {
    return this.path('images', image, 'blobs', ...digest.split(':'));
  }

  /** The manifests Image/app, LayerChain/app and Mount/app. */
  app(options: AppOptions = {}): void {
    this.write('manifests/app.yaml', this.appText(options));
  }

  appText(options: AppOptions = {}): string {
    const {
      image = 'app',
      path = this.mountPoint,
      view,
      mountSpec,
      mountMetadata,
      chainSpec,
      imageSpec,
    } = options;
    const more = (text: string | undefined) => (text === undefined ? '' : `, ${text}`);
    return `apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: {name: app}
spec: {source: {ociLayout: ../images/${image}}, platform: {os: windows, architecture: amd64}${more(imageSpec)}}
---
apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata: {name: app}
spec: {format: ForkedCIM, layers: [{image: app}], retry: {limit: 0}${more(chainSpec)}}
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: {name: app${more(mountMetadata)}}
spec: {chain: app, path: ${path}, retry: {limit: 0}${more(view && `view: ${view}`)}${more(mountSpec)}}
`;
  }

  /** The program, with this root; fails the test on any other exit code. */
  run(args: readonly string[], code = 0, options: ProgramOptions = {}): Promise<ProgramResult> {
    return expectProgram([...args, '--root', this.root], code, options);
  }

  apply(code = 0, ...more: string[]): Promise<ProgramResult> {
    return this.run(['apply', '-f', this.manifest, '--yes', ...more], code);
  }

  async plan(code = 0, ...more: string[]): Promise<Plan> {
    const { stdout } = await this.run(['plan', '-f', this.manifest, '-o', 'json', ...more], code);
    return JSON.parse(stdout) as Plan;
  }

  async observe(): Promise<HostState> {
    return JSON.parse((await this.run(['observe', '-f', this.manifest, '-o', 'json'])).stdout) as HostState;
  }

  async expectEmptyPlan(): Promise<void> {
    const plan = await this.plan(0, '--detailed-exitcode');
    expect([plan.actions, plan.blocked]).toEqual([[], []]);
  }

  /** A region file, an object ID file or the image of the layer at `index`, base 0. */
  layerFile(index: number, pattern: RegExp): string {
    const folder = join(this.root, 'snapshots');
    const records = readdirSync(folder).map(
      (name) =>
        JSON.parse(readFileSync(join(folder, name, 'layer.json'), 'utf8')) as {
          layer: CommittedLayer;
          cimFiles: { name: string }[];
        },
    );
    let record = records.find(({ layer }) => layer.parent === undefined);
    for (let at = 0; at < index; at++) {
      const below = record?.layer.chainId;
      record = records.find(({ layer }) => layer.parent === below);
    }
    const file = record?.cimFiles.find(({ name }) => pattern.test(name));
    if (file === undefined) throw new Error(`layer ${index} has no file ${pattern}`);
    return join(this.root, 'cim-layers', file.name);
  }

  /** Everything but the root and the mount point: what no run may change. */
  surroundings(): string[] {
    return fingerprint(this.directory, [this.root, this.mountPoint]);
  }
}

/** The entries as a plain tar. */
export function tarOf(items: readonly LayerItem[]): Buffer {
  return writeTar((tar) => {
    for (const { content, ...item } of items) {
      const entry = { ...item, mtime: item.mtime ?? LAYER_TIME };
      if (content === undefined) tar.entry(entry);
      else tar.file(entry, content);
    }
    tar.finish();
  });
}

/** Whatever `write` writes, whole or not. */
export function writeTar(write: (tar: TarWriter) => void): Buffer {
  const chunks: Uint8Array[] = [];
  write(new TarWriter((bytes) => chunks.push(Uint8Array.from(bytes))));
  return Buffer.concat(chunks);
}

/** Every path below a directory with its kind, mode, time and content. */
export function fingerprint(directory: string, except: readonly string[] = []): string[] {
  const lines: string[] = [];
  const visit = (path: string): void => {
    if (except.includes(path)) return;
    const stat = lstatSync(path);
    const facts = `${path.slice(directory.length) || '/'} ${stat.mode.toString(8)}`;
    if (stat.isSymbolicLink()) lines.push(`${facts} -> ${readlinkSync(path)}`);
    else if (stat.isFile()) {
      const digest = createHash('sha256').update(readFileSync(path)).digest('hex');
      lines.push(`${facts} ${stat.size} ${stat.mtimeMs} ${digest}`);
    } else {
      lines.push(facts);
      for (const name of stat.isDirectory() ? readdirSync(path).sort() : []) visit(join(path, name));
    }
  };
  visit(directory);
  return lines;
}

/** The one `error:` line of a run that failed, with its hint: that there are no more is checked. */
export function onlyError({ stderr }: ProgramResult): { error: string; hint: string | undefined } {
  const lines = stderr.split('\n');
  const errors = lines.filter((line) => line.startsWith('error: '));
  expect(errors, stderr).toHaveLength(1);
  expect(stderr).not.toMatch(/bug in cimlet|^\s+at /m);
  return { error: errors[0] ?? '', hint: lines.find((line) => line.startsWith('hint: ')) };
}

/** `id verb reason,reason` for each action, those of drift with a `!`. */
export function brief(actions: readonly PlannedAction[]): string[] {
  return actions.map(({ kind, id, verb, drift, reasons }) => {
    const name = kind === 'Snapshot' ? 'Snapshot' : id;
    return `${drift ? '!' : ''}${name} ${verb} ${reasons.map(({ code }) => code).join(',')}`;
  });
}

/** Flips a bit of a file; `last` is in the last byte that isn't zero. */
export function flip(path: string, where: 'first' | 'middle' | 'last' = 'middle'): void {
  const bytes = readFileSync(path);
  const places = { first: 0, middle: bytes.length >> 1, last: bytes.findLastIndex((byte) => byte !== 0) };
  const at = places[where];
  bytes.writeUInt8(bytes.readUInt8(at) ^ 0x10, at);
  writeFileSync(path, bytes);
}
