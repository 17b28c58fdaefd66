/**
 * Writes src/manifests/types.gen.ts from schemas/. With `--check` it writes nothing and exits 1 when the file is stale.
 */

import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { compile } from 'json-schema-to-typescript';

const SCHEMAS = fileURLToPath(new URL('../schemas/', import.meta.url));
const TARGET = fileURLToPath(new URL('../src/manifests/types.gen.ts', import.meta.url));
const KINDS = ['image.schema.json', 'layerchain.schema.json', 'mount.schema.json', 'agent.schema.json'];
const BANNER = '/* Generated from schemas/ by `npm run types:generate`; do not edit. */';

type Json = null | boolean | number | string | Json[] | JsonObject;
type JsonObject = { [key: string]: Json };

/**
 * Prepares a schema for the compiler: what types can't say (exactly one of these fields) only clutters them and is left
 * out; a reference with a description of its own is replaced by what it refers to, so that the description stays.
 */
function simplify(schema: Json, definitions: JsonObject): Json {
  if (Array.isArray(schema)) return schema.map((item) => simplify(item, definitions));
  if (!isObject(schema)) return schema;
  const { $ref, ...own } = schema;
  const referred = typeof $ref === 'string' ? definitions[$ref.slice($ref.lastIndexOf('/') + 1)] : undefined;
  if (isObject(referred) && Object.keys(own).length > 0)
    return simplify({ ...referred, ...own }, definitions);
  const kept = Object.entries(schema).filter(([key, value]) => !(key === 'oneOf' && isExclusion(value)));
  return Object.fromEntries(kept.map(([key, value]) => [key, simplify(value, definitions)]));
}

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isExclusion(value: Json): boolean {
  return (
    Array.isArray(value) &&
    value.every((branch) => isObject(branch) && Object.keys(branch).join() === 'required')
  );
}

/** The text of types.gen.ts as the schemas say now. */
export async function generateTypes(): Promise<string> {
  const read = async (file: string): Promise<JsonObject> =>
    JSON.parse(await readFile(SCHEMAS + file, 'utf8')) as JsonObject;
  const definitions = (await read('common.schema.json')).$defs as JsonObject;
  const all = {
    title: 'Document',
    description: 'Any document that cimlet reads.',
    oneOf: await Promise.all(KINDS.map(async (file) => simplify(await read(file), definitions))),
  };
  return await compile(all as Parameters<typeof compile>[0], 'Document', {
    bannerComment: BANNER,
    cwd: SCHEMAS,
    additionalProperties: false,
    ignoreMinAndMaxItems: true,
    strictIndexSignatures: false,
    unknownAny: true,
    style: { singleQuote: true, printWidth: 110 },
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const wanted = await generateTypes();
  if (!process.argv.includes('--check')) {
    await writeFile(TARGET, wanted);
  } else if ((await readFile(TARGET, 'utf8')) !== wanted) {
    process.stderr.write('src/manifests/types.gen.ts is stale: run `npm run types:generate`\n');
    process.exitCode = 1;
  }
}
