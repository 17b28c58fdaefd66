import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';

const ROOT = new URL('../../', import.meta.url);

interface Schema {
  $ref?: string;
  properties?: Record<string, Schema>;
  items?: Schema;
  oneOf?: Schema[];
  default?: unknown;
  enum?: string[];
  $defs?: Record<string, Schema>;
}

async function readSchema(name: string): Promise<Schema> {
  return JSON.parse(await readFile(new URL(`schemas/${name}.schema.json`, ROOT), 'utf8')) as Schema;
}

/** Every field below a schema with its schema, e.g. `spec.layers[].image`. */
function fieldsOf(schema: Schema, definitions: Record<string, Schema>, path = ''): [string, Schema][] {
  const { $ref, ...own } = schema;
  const whole: Schema = { ...definitions[$ref?.split('/').at(-1) ?? ''], ...own };
  const direct = Object.entries(whole.properties ?? {}).flatMap(([name, part]): [string, Schema][] => {
    const step = /^\w+$/.test(name) ? `${path === '' ? '' : '.'}${name}` : `["${name}"]`;
    const field = `${path}${step}`;
    return [[field, part], ...fieldsOf(part, definitions, field)];
  });
  const items = whole.items === undefined ? [] : fieldsOf(whole.items, definitions, `${path}[]`);
  return [
    ...direct,
    ...items,
    ...(whole.oneOf ?? []).flatMap((branch) => fieldsOf(branch, definitions, path)),
  ];
}

async function tableRows(): Promise<Map<string, Map<string, string>>> {
  const text = await readFile(new URL('docs/manifests.md', ROOT), 'utf8');
  const sections = new Map<string, Map<string, string>>();
  for (const section of text.split(/^## /m).slice(1)) {
    const rows = section.split('\n').filter((line) => line.startsWith('| `'));
    const title = section.slice(0, section.indexOf('\n'));
    sections.set(title, new Map(rows.map((row) => [row.split('`')[1] ?? '', row])));
  }
  return sections;
}

it.each([
  ['image', 'Image'],
  ['layerchain', 'LayerChain'],
  ['mount', 'Mount'],
  ['agent', 'cimlet.yaml'],
])('docs/manifests.md has every field of %s, with its default and values', async (name, title) => {
  const { $defs: definitions = {} } = await readSchema('common');
  const sections = await tableRows();
  const rows = new Map([
    ...(name === 'agent' ? [] : (sections.get('Every kind') ?? [])),
    ...(sections.get(title) ?? []),
  ]);
  for (const [field, schema] of fieldsOf(await readSchema(name), definitions)) {
    expect([...rows.keys()]).toContain(field);
    if (schema.default !== undefined) expect(rows.get(field)).toContain(`| \`${String(schema.default)}\` |`);
    for (const value of schema.enum ?? []) expect(rows.get(field)).toContain(`\`${value}\``);
  }
});

it('docs/manifests.md has no field that the schemas lack', async () => {
  const { $defs: definitions = {} } = await readSchema('common');
  const schemas = await Promise.all(['image', 'layerchain', 'mount', 'agent'].map(readSchema));
  const known = new Set(schemas.flatMap((schema) => fieldsOf(schema, definitions).map(([field]) => field)));
  for (const rows of (await tableRows()).values()) {
    for (const field of rows.keys()) expect([...known]).toContain(field);
  }
});
