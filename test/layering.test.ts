/** The dependency rule of docs/architecture.md, kept true: which folder may import which, and who owns a library. */

import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { expect, test } from 'vitest';

const SOURCE = resolve(import.meta.dirname, '../src');

/** The port: what anybody above the hosts may know of them. */
const PORT = ['hosts/host.ts', 'hosts/identity.ts', 'hosts/keyed-lock.ts'];

/** Folder -> folders or files it may import besides itself and errors.ts. */
const ALLOWED: Record<string, string[]> = {
  'main.ts': [
    'cli',
    'server',
    'reconciler',
    'manifests',
    'images',
    'hosts',
    'state',
    'service',
    'native/linux/output.ts',
  ],
  cli: [
    'agent',
    'server',
    'sources',
    'service',
    'reconciler',
    'snapshots',
    'manifests',
    'state',
    'images',
    'cim',
    'ext4',
    'hosts/layer-disk.ts',
    'hosts/verify-disk.ts',
    ...PORT,
  ],
  reconciler: ['machines', 'manifests', 'state', 'images', ...PORT],
  snapshots: ['state', ...PORT],
  server: ['agent', 'sources', 'reconciler', 'manifests', 'state'],
  agent: ['reconciler', 'sources', 'manifests', 'state'],
  machines: ['reconciler/types.ts', ...PORT],
  state: ['reconciler/types.ts', 'manifests/resources.ts', ...PORT],
  manifests: [],
  sources: ['manifests'],
  service: ['native'],
  images: ['tar', 'hosts/quick-look.ts', ...PORT],
  layers: ['cim', 'ext4', 'hive', 'tar', ...PORT],
  hosts: ['images', 'layers', 'tar', 'cim', 'ext4', 'vhd', 'erofs', 'native'],
  native: [],
  cim: ['vhd'],
  ext4: ['vhd'],
  vhd: ['erofs/crc32c.ts'],
  hive: [],
  tar: [],
  erofs: [],
};

/** Library -> the only files that import it. */
const OWNERS: Record<string, RegExp> = {
  koffi: /^native\/library\.ts$/,
  ajv: /^manifests\/validate\.ts$/,
  'ajv/dist/2020.js': /^manifests\/validate\.ts$/,
  'ajv-formats': /^manifests\/validate\.ts$/,
  yaml: /^(manifests\/[a-z-]+|cli\/output)\.ts$/,
  'fastest-levenshtein': /^manifests\/suggest\.ts$/,
  commander: /^cli\//,
  pino: /^cli\/run-agent\.ts$/,
  fastify: /^server\//,
  'prom-client': /^server\/metrics\.ts$/,
  'log-update': /^cli\/live-area\.ts$/,
  'string-width': /^cli\//,
  xstate: /^(machines|reconciler)\//,
  'p-limit': /^reconciler\//,
  undici: /^images\/registry\/http\.ts$/,
  'smol-toml': /^images\/registry\/endpoints\.ts$/,
  chokidar: /^sources\/watch-folder\.ts$/,
  semver: /^(sources\/git-refs|images\/registry\/tag-policy)\.ts$/,
  '@sigstore/bundle': /^images\/signatures\/keyless\.ts$/,
  '@sigstore/verify': /^images\/signatures\/keyless\.ts$/,
  '@sigstore/tuf': /^images\/signatures\/trusted-root\.ts$/,
  '@sigstore/protobuf-specs': /^images\/signatures\/trusted-root\.ts$/,
  cborg: /^images\/signatures\/notation-envelope\.ts$/,
  re2js: /^images\/registry\/tag-policy\.ts$/,
  uuid: /^hosts\/identity\.ts$/,
  'node:sqlite': /^state\//,
};

interface Import {
  file: string;
  specifier: string;
}

function allImports(): Import[] {
  const files = readdirSync(SOURCE, { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.ts'),
  );
  return files.flatMap((file) => {
    const text = readFileSync(join(SOURCE, file), 'utf8');
    const specifiers = text.matchAll(
      /(?:^|\n)\s*(?:import|export)\s[^'";]*?from\s+'([^']+)'|import\(\s*'([^']+)'\s*\)|\nimport '([^']+)'/g,
    );
    return [...specifiers].map((match) => ({ file, specifier: match[1] ?? match[2] ?? match[3] ?? '' }));
  });
}

const imports = allImports();

test('every import follows an allowed arrow', () => {
  const forbidden = imports
    .filter(({ specifier }) => specifier.startsWith('.'))
    .map(({ file, specifier }) => ({
      file,
      target: relative(SOURCE, resolve(SOURCE, dirname(file), specifier)),
    }))
    .filter(({ file, target }) => {
      const from = file.split('/')[0] ?? '';
      const to = target.split('/')[0] ?? '';
      if (from === to || target === 'errors.ts' || target.startsWith('../')) return false;
      return !(ALLOWED[from] ?? []).some((allowed) => allowed === to || allowed === target);
    })
    .map(({ file, target }) => `${file} -> ${target}`);
  expect(forbidden).toEqual([]);
});

test('every folder under src has a place in the rule', () => {
  const folders = new Set(imports.map(({ file }) => file.split('/')[0] ?? ''));
  folders.delete('errors.ts');
  expect([...folders].filter((folder) => !(folder in ALLOWED))).toEqual([]);
});

test('one owner for each library', () => {
  const strangers = imports
    .filter(
      ({ specifier }) =>
        !specifier.startsWith('.') && !(specifier.startsWith('node:') && !(specifier in OWNERS)),
    )
    .filter(({ file, specifier }) => !OWNERS[specifier]?.test(file))
    .map(({ file, specifier }) => `${file} imports ${specifier}`);
  expect(strangers).toEqual([]);
});

test('only main.ts asks which operating system it is', () => {
  const askers = readdirSync(SOURCE, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && name !== 'main.ts' && !name.startsWith('native/'))
    .filter((name) => /process\.platform/.test(readFileSync(join(SOURCE, name), 'utf8')));
  expect(askers).toEqual([]);
});
