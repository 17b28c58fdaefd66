/** Manifests and other documents against the JSON Schemas in schemas/. The one file that knows ajv. */

import { readFileSync } from 'node:fs';
import type { ValidateFunction } from 'ajv';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { type FieldPath, quote } from './field-path.ts';
import { describeIssues, type Issue } from './issues.ts';
import type { Kind } from './resources.ts';
import { suggest } from './suggest.ts';

const API_VERSION = 'cimlet.dev/v1alpha1';
export const KINDS: readonly Kind[] = ['Image', 'LayerChain', 'Mount'];

/** Documents other than manifests that have a schema: cimlet.yaml, `plan -o json`, `observe -o json`. */
export type DocumentSchema = 'agent' | 'plan' | 'host-state';

const BASE = 'https://cimlet.dev/schemas/v1alpha1/';
const SCHEMAS = new URL('../../schemas/', import.meta.url);
/** Keywords for editors and for the messages of issues.ts. */
const ANNOTATIONS = ['patternErrorMessage', 'errorMessage'];

let ajv: Ajv2020 | undefined;

function readSchema(name: string): object {
  return JSON.parse(readFileSync(new URL(`${name}.schema.json`, SCHEMAS), 'utf8')) as object;
}

/** Compiled on first use: no command needs every schema. */
function validator(name: string): ValidateFunction {
  if (ajv === undefined) {
    ajv = new Ajv2020({
      allErrors: true,
      verbose: true,
      allowUnionTypes: true,
      strictRequired: false,
      strictTypes: false,
      keywords: ANNOTATIONS,
      // Each command compiles them anew; without making them shorter, and without the checks of tests, in a third of the time.
      code: { optimize: false },
      validateSchema: false,
    });
    for (const shared of ['common', 'host-state']) ajv.addSchema(readSchema(shared));
  }
  return ajv.getSchema(`${BASE}${name}.schema.json`) ?? ajv.compile(readSchema(name));
}

function check(schema: string, data: unknown): Issue[] {
  const validate = validator(schema);
  if (validate(data)) return [];
  return describeIssues(validate.errors ?? [], data);
}

/** What is wrong with a document by its schema; empty when nothing is. */
export function checkDocument(schema: DocumentSchema, data: unknown): Issue[] {
  return check(schema, data);
}

export interface CheckedManifest {
  /** When it could be told. */
  kind?: Kind | undefined;
  issues: Issue[];
}

/** What is wrong with a manifest by the schema of its kind. */
export function checkManifest(data: unknown): CheckedManifest {
  if (typeof data !== 'object' || data === null || Array.isArray(data)) {
    return reject([], 'schema', 'a manifest is a map with apiVersion, kind, metadata and spec');
  }
  const { apiVersion, kind } = data as { apiVersion?: unknown; kind?: unknown };
  if (apiVersion === undefined) {
    return reject([], 'schema', `apiVersion is missing; this release knows ${API_VERSION}`);
  }
  if (apiVersion !== API_VERSION) {
    const message = `unknown apiVersion ${quote(apiVersion)}; this release knows ${API_VERSION}`;
    return reject(['apiVersion'], 'unknown-kind', message);
  }
  if (kind === undefined) return reject([], 'schema', `kind is missing; it is one of ${KINDS.join(', ')}`);
  const known = KINDS.find((each) => each === kind);
  if (known === undefined) {
    const message = `unknown kind ${quote(kind)}; it is one of ${KINDS.join(', ')}`;
    return reject(['kind'], 'unknown-kind', message, suggest(String(kind), KINDS));
  }
  return { kind: known, issues: check(known.toLowerCase(), data) };
}

function reject(path: FieldPath, code: Issue['code'], message: string, suggestion?: string): CheckedManifest {
  return { issues: [{ path, at: 'value', code, message, suggestion }] };
}
