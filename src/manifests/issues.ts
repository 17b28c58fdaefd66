/** Turns what a schema validator reports into what a person can act on: one clear issue for each mistake. */

import { type FieldPath, formatField, quote } from './field-path.ts';
import type { Problem } from './resources.ts';
import { suggest } from './suggest.ts';

export interface Issue {
  path: FieldPath;
  /** Whether the key or the value is to be pointed at. */
  at: 'key' | 'value';
  code: Problem['code'];
  /** Names the field. */
  message: string;
  /** The word that was probably meant. */
  suggestion?: string | undefined;
}

/** More than this many of one document help nobody. */
const MOST_ISSUES = 100;
/** Sorting out alternatives compares errors with one another. */
const MOST_ERRORS = 1000;

/** What a validator reports, as ajv has it with `verbose`. */
export interface SchemaError {
  keyword: string;
  /** JSON pointers into the data and the schema. */
  instancePath: string;
  schemaPath: string;
  params: object;
  /** Set when a key is at fault, not a value. */
  propertyName?: string;
  message?: string;
  parentSchema?: object;
  data?: unknown;
}

/** A part of a schema, as far as messages need it. */
interface SchemaPart {
  properties?: Record<string, SchemaPart>;
  required?: string[];
  oneOf?: SchemaPart[];
  type?: string | string[];
  patternErrorMessage?: string;
  errorMessage?: string;
}

/** Says nothing that the errors beside it don't say. */
const SILENT_KEYWORDS = new Set(['if', 'propertyNames', 'dependentSchemas', '$ref']);

export function describeIssues(errors: readonly SchemaError[], data: unknown): Issue[] {
  const heard = withoutBranches(errors.slice(0, MOST_ERRORS)).filter(
    ({ keyword }) => !SILENT_KEYWORDS.has(keyword),
  );
  const issues: Issue[] = [];
  const told = new Set<string>();
  /** Fields that a misspelt one was probably meant to be: that they are missing is no second mistake. */
  const meant = new Set<string>();
  const ordered = [...heard].sort((a, b) => rank(a) - rank(b));
  for (const error of ordered) {
    if (issues.length === MOST_ISSUES) break;
    const at = pathOf(error.instancePath, data);
    if (isExcused(error, meant)) continue;
    const issue = describe(error, at, data);
    // One issue for one place, whatever else is wrong with it.
    const place = `${issue.at}:${formatField(issue.path)}`;
    if (told.has(place)) continue;
    told.add(place);
    issues.push(issue);
    if (issue.code === 'unknown-field' && issue.suggestion !== undefined) {
      meant.add(`${error.instancePath}/${issue.suggestion}`);
    }
  }
  return issues;
}

/** A wrong type first, since all else follows from it; misspelt fields, since they excuse others; then as the schema has it. */
function rank({ keyword }: SchemaError): number {
  return keyword === 'type' || keyword === 'additionalProperties' ? 0 : 1;
}

function isExcused(error: SchemaError, meant: ReadonlySet<string>): boolean {
  if (error.keyword === 'required') {
    return meant.has(
      `${error.instancePath}/${(error.params as { missingProperty: string }).missingProperty}`,
    );
  }
  if (error.keyword !== 'oneOf') return false;
  return exclusiveFields(error).some((field) => meant.has(`${error.instancePath}/${field}`));
}

/**
 * A failed oneOf is reported along with the errors of all its branches. Where one branch has the value's type, its
 * errors are the ones to tell; else the oneOf is.
 */
function withoutBranches(errors: readonly SchemaError[]): readonly SchemaError[] {
  const dropped = new Set<SchemaError>();
  for (const error of errors) {
    if (error.keyword !== 'oneOf') continue;
    const branches = new Map<string, SchemaError[]>();
    for (const other of errors) {
      if (!other.schemaPath.startsWith(`${error.schemaPath}/`) || !isWithin(other, error)) continue;
      const branch = other.schemaPath.slice(error.schemaPath.length + 1).split('/')[0] ?? '';
      branches.set(branch, [...(branches.get(branch) ?? []), other]);
    }
    const fitting = [...branches.values()].filter(
      (branch) => !branch.some((each) => each.keyword === 'type' && each.instancePath === error.instancePath),
    );
    const told = exclusiveFields(error).length === 0 && fitting.length === 1 ? fitting[0] : undefined;
    for (const branch of branches.values()) {
      if (branch !== told) for (const each of branch) dropped.add(each);
    }
    if (told !== undefined) dropped.add(error);
  }
  return dropped.size === 0 ? errors : errors.filter((error) => !dropped.has(error));
}

function isWithin(inner: SchemaError, outer: SchemaError): boolean {
  return inner.instancePath === outer.instancePath || inner.instancePath.startsWith(`${outer.instancePath}/`);
}

/** The fields of a oneOf that says nothing but which of them is required. */
function exclusiveFields(error: SchemaError): string[] {
  const branches = (error.parentSchema as SchemaPart).oneOf ?? [];
  return branches.every((branch) => Object.keys(branch).join() === 'required')
    ? branches.flatMap((branch) => branch.required ?? [])
    : [];
}

function describe(error: SchemaError, path: FieldPath, data: unknown): Issue {
  const schema = error.parentSchema as SchemaPart;
  const params = error.params as Record<string, unknown>;
  const issue = (message: string, suggestion?: string): Issue => ({
    path,
    at: 'value',
    code: 'schema',
    message,
    suggestion,
  });
  const name = path.length === 0 ? 'the document' : formatField(path);
  if (error.propertyName !== undefined) return describeKey(error, error.propertyName, path);
  if (schema.errorMessage !== undefined) return issue(schema.errorMessage);
  switch (error.keyword) {
    case 'additionalProperties':
      return describeUnknownField(String(params.additionalProperty), schema, path, data);
    case 'required': {
      const missing = [...path, String(params.missingProperty)];
      return { ...issue(`${formatField(missing)} is missing`), path: missing };
    }
    case 'oneOf':
      return issue(describeChoice(error, name));
    case 'dependentRequired': {
      const key = [...path, String(params.property)];
      return { ...issue(`${formatField(key)} needs ${String(params.deps)} beside it`), path: key, at: 'key' };
    }
    case 'type':
      return issue(
        schema.patternErrorMessage !== undefined && typeof error.data === 'number'
          ? `${name} ${schema.patternErrorMessage} (in quotes), is the number ${error.data}`
          : describeType(name, [params.type].flat().map(String), error.data),
      );
    case 'enum': {
      const allowed = (params.allowedValues as unknown[]).map(String);
      return issue(
        `${name} is ${quote(error.data)}; it is one of ${allowed.join(', ')}`,
        typeof error.data === 'string' ? suggest(error.data, allowed) : undefined,
      );
    }
    case 'const':
      return issue(`${name} must be ${quote(params.allowedValue)}, is ${quote(error.data)}`);
    case 'pattern': {
      const rule = schema.patternErrorMessage ?? `must match ${String(params.pattern)}`;
      return issue(
        error.data === '' ? `${name} is empty; it ${rule}` : `${name} ${rule}, is ${quote(error.data)}`,
      );
    }
    case 'minLength':
      return issue(`${name} is empty`);
    case 'maxLength':
      return issue(`${name} is longer than ${String(params.limit)} characters`);
    case 'minItems':
      return issue(`${name} must not be an empty list`);
    case 'minProperties':
      return issue(`${name} needs at least one of ${Object.keys(schema.properties ?? {}).join(', ')}`);
    case 'minimum':
      return issue(`${name} must be at least ${String(params.limit)}, is ${quote(error.data)}`);
    case 'maximum':
      return issue(`${name} must be at most ${String(params.limit)}, is ${quote(error.data)}`);
    default:
      return issue(`${name} ${error.message ?? `breaks the rule ${error.keyword}`}`);
  }
}

/** Something is wrong with a key of a map whose keys are free. */
function describeKey(error: SchemaError, key: string, path: FieldPath): Issue {
  const place = { path: [...path, key], at: 'key' } as const;
  const map = formatField(path);
  if (error.keyword === 'enum') {
    const allowed = (error.params as { allowedValues: string[] }).allowedValues;
    const message = `unknown key ${quote(key)} in ${map}; of cimlet's own there are ${allowed.join(', ')}`;
    return { ...place, code: 'unknown-field', message, suggestion: suggest(key, allowed) };
  }
  const rule = error.keyword === 'minLength' ? 'is empty' : 'is too long';
  return { ...place, code: 'schema', message: `the key ${quote(key)} in ${map} ${rule}` };
}

function describeUnknownField(field: string, schema: SchemaPart, path: FieldPath, data: unknown): Issue {
  const where = path.length === 0 ? '' : ` in ${formatField(path)}`;
  const place = { path: [...path, field], at: 'key', code: 'unknown-field' } as const;
  if (path.length === 0 && field === 'status') {
    return { ...place, message: 'status is written by cimlet only; leave it out' };
  }
  if (field === '<<') {
    return {
      ...place,
      message: `merge keys (<<)${where} are no part of YAML 1.2; repeat the fields, or use an alias`,
    };
  }
  const known = Object.keys(schema.properties ?? {});
  const written = ownKeys(valueAt(data, path));
  const free = known.filter((name) => !written.has(name));
  const inSpec = path.length === 0 && Object.hasOwn(schema.properties?.spec?.properties ?? {}, field);
  const suggestion = inSpec ? `spec.${field}` : (suggest(field, free) ?? suggest(field, known));
  return { ...place, message: `unknown field ${quote(field)}${where}`, suggestion };
}

function describeChoice(error: SchemaError, name: string): string {
  const fields = exclusiveFields(error);
  if (fields.length > 0) {
    const written = ownKeys(error.data);
    const found = fields.filter((field) => written.has(field));
    const list = found.length === 0 ? 'none' : found.join(', ');
    return `${name} needs exactly one of ${fields.join(', ')}; found ${list}`;
  }
  const types = ((error.parentSchema as SchemaPart).oneOf ?? []).flatMap(({ type }) => type ?? []);
  const isTyped = typeof error.data !== 'object' || error.data === null || !types.includes('object');
  return isTyped ? describeType(name, types, error.data) : `${name} is none of the maps it may be`;
}

const TYPE_NAMES: Record<string, string> = {
  string: 'a string',
  integer: 'a whole number',
  number: 'a number',
  boolean: 'true or false',
  object: 'a map',
  array: 'a list',
  null: 'empty',
};

function describeType(name: string, types: readonly string[], value: unknown): string {
  const wanted = types.map((type) => TYPE_NAMES[type] ?? type).join(' or ');
  if (value === null) return `${name} has no value; it must be ${wanted}`;
  const scalar = typeof value === 'number' || typeof value === 'boolean';
  const advice = scalar && types.includes('string') ? '; put it in quotes' : '';
  return `${name} must be ${wanted}, is ${describeValue(value)}${advice}`;
}

function describeValue(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a map';
  return `${typeof value === 'boolean' ? '' : `the ${typeof value} `}${typeof value === 'number' ? String(value) : quote(value)}`;
}

function ownKeys(value: unknown): ReadonlySet<string> {
  return new Set(typeof value === 'object' && value !== null ? Object.keys(value) : []);
}

function valueAt(data: unknown, path: FieldPath): unknown {
  return path.reduce<unknown>((value, step) => (value as Record<string | number, unknown>)[step], data);
}

/** A JSON pointer as keys and indexes of the data it points into. */
function pathOf(pointer: string, data: unknown): FieldPath {
  let value = data;
  return pointer
    .split('/')
    .slice(1)
    .map((escaped) => {
      const step = escaped.replaceAll('~1', '/').replaceAll('~0', '~');
      const key = Array.isArray(value) ? Number(step) : step;
      value = (value as Record<string | number, unknown>)[key];
      return key;
    });
}
