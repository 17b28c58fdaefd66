/** The files that one command writes and another reads: observed states and saved plans. */

import { readFile } from 'node:fs/promises';
import { CimletError, classify } from '../errors.ts';
import type { HostState } from '../hosts/host.ts';
import { checkDocument, type DocumentSchema } from '../manifests/validate.ts';
import type { SavedPlan } from '../reconciler/types.ts';

/** What `observe -o json` printed, on this machine or another. */
export async function readHostState(file: string): Promise<HostState> {
  const hint = 'cimlet observe -o json writes such a file';
  const data = await readJson(file, hint);
  requireSchema(file, 'an observed state', 'host-state', data, hint);
  return data as HostState;
}

/** What `plan --out` wrote. Whether it still fits is another question. */
export async function readSavedPlan(file: string): Promise<SavedPlan> {
  const hint = 'cimlet plan --out FILE writes such a file; manifests are named with -f';
  const data = await readJson(file, hint);
  if (!isObject(data) || data.formatVersion !== 1 || !isInputs(data.inputs)) {
    throw new CimletError('corrupt', `read ${file}: not a saved plan of format version 1`, { hint });
  }
  requireSchema(file, 'a saved plan', 'plan', data.plan, hint);
  return data as unknown as SavedPlan;
}

async function readJson(file: string, hint: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    if (error instanceof SyntaxError) {
      throw new CimletError('corrupt', `read ${file}: not JSON: ${error.message}`, { hint, cause: error });
    }
    throw classify(error, `read ${file}`);
  }
}

function requireSchema(
  file: string,
  what: string,
  schema: DocumentSchema,
  data: unknown,
  hint: string,
): void {
  const [issue] = checkDocument(schema, data);
  if (issue !== undefined) {
    throw new CimletError('corrupt', `read ${file}: not ${what}: ${issue.message}`, { hint });
  }
}

function isInputs(value: unknown): value is SavedPlan['inputs'] {
  if (!isObject(value)) return false;
  const { arguments: names, files, targets, prune } = value;
  return (
    isListOf(names, isString) && isListOf(files, isObject) && isListOf(targets, isString) && isBoolean(prune)
  );
}

function isListOf(value: unknown, suits: (member: unknown) => boolean): boolean {
  return Array.isArray(value) && value.every(suits);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isString(value: unknown): boolean {
  return typeof value === 'string';
}

function isBoolean(value: unknown): boolean {
  return typeof value === 'boolean';
}
