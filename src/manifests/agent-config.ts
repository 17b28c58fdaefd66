/** cimlet.yaml: text -> the agent's configuration, checked against its schema with positions. */

import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { CimletError, classify } from '../errors.ts';
import { type FieldPath, formatField } from './field-path.ts';
import { parseDuration } from './quantities.ts';
import type { AgentConfig } from './types.gen.ts';
import { checkDocument } from './validate.ts';
import { parseYaml, type YamlDocument } from './yaml-stream.ts';

export interface LoadedConfig {
  config: AgentConfig;
  /** Absolute. */
  file: string;
  /** What relative paths in it are relative to. */
  baseDirectory: string;
  /** Where a setting stands, for messages: `cimlet.yaml:3:5: listen.tokenFile`. */
  locate(field: FieldPath): string;
}

/** More of them than this are counted. */
const PROBLEMS_NAMED = 5;
const LARGEST_PORT = 65_535;
/** Of labels that a host has by itself. */
const OWN_PREFIX = 'cimlet.dev/';

/** Throws `invalid-manifest` naming each problem by file, line and column; `not-found` and the like for the file. */
export async function loadAgentConfig(path: string): Promise<LoadedConfig> {
  const file = resolve(path);
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    throw classify(error, `read configuration ${path}`, 'name it with --config');
  }
  const { documents, faults } = parseYaml(text);
  const [document, second] = documents;
  const problems = faults.map(({ line, column, message }) => `${path}:${line}:${column}: ${message}`);
  if (problems.length === 0) {
    if (second !== undefined) {
      const { line, column } = second.start;
      problems.push(`${path}:${line}:${column}: a configuration is one document`);
    } else if (document !== undefined) problems.push(...findProblems(path, document));
  }
  if (problems.length > 0) {
    const more =
      problems.length > PROBLEMS_NAMED ? `\nand ${problems.length - PROBLEMS_NAMED} more problems` : '';
    throw new CimletError('invalid-manifest', problems.slice(0, PROBLEMS_NAMED).join('\n') + more);
  }
  // The schema has checked it; an empty file says nothing.
  const config = (document?.data ?? {}) as AgentConfig;
  const locate = (field: FieldPath) => {
    const { line, column } = document?.placeOf(field) ?? { line: 1, column: 1 };
    return `${path}:${line}:${column}: ${formatField(field)}`;
  };
  return { config, file, baseDirectory: dirname(file), locate };
}

function findProblems(path: string, document: YamlDocument): string[] {
  const problems = checkDocument('agent', document.data).map(({ path: field, at, message, suggestion }) => {
    const { line, column } = at === 'key' ? document.placeOfKey(field) : document.placeOf(field);
    const name = field.length === 0 ? '' : `${formatField(field)}: `;
    const hint = suggestion === undefined ? '' : `; did you mean ${suggestion}?`;
    return `${path}:${line}:${column}: ${name}${message}${hint}`;
  });
  if (problems.length > 0) return problems;
  const { sources = [], notifications = [], labels = {}, intervals, listen } = document.data as AgentConfig;
  const seen = new Set<string>();
  const requireSome = (field: (string | number)[], duration: string | undefined): void => {
    if (duration === undefined || parseDuration(duration) > 0) return;
    const { line, column } = document.placeOf(field);
    problems.push(`${path}:${line}:${column}: ${formatField(field)}: must be more than 0`);
  };
  requireSome(['intervals', 'resync'], intervals?.resync);
  if (Number(listen?.address.split(':').at(-1) ?? 0) > LARGEST_PORT) {
    const { line, column } = document.placeOf(['listen', 'address']);
    problems.push(`${path}:${line}:${column}: listen.address: no port is larger than ${LARGEST_PORT}`);
  }
  for (const [index, { name, interval }] of sources.entries()) {
    requireSome(['sources', index, 'interval'], interval);
    const { line, column } = document.placeOf(['sources', index, 'name']);
    if (seen.has(name)) problems.push(`${path}:${line}:${column}: another source is named ${name} too`);
    seen.add(name);
  }
  for (const name of Object.keys(labels)) {
    if (!name.startsWith(OWN_PREFIX)) continue;
    const { line, column } = document.placeOfKey(['labels', name]);
    problems.push(`${path}:${line}:${column}: labels: ${name} is one that every host has by itself`);
  }
  const receivers = new Set<string>();
  for (const [index, { name, type = 'webhook', secretFile, secretVariable }] of notifications.entries()) {
    const complain = (field: string, message: string): void => {
      const { line, column } = document.placeOf(['notifications', index, field]);
      problems.push(`${path}:${line}:${column}: ${message}`);
    };
    if (receivers.has(name)) complain('name', `another receiver is named ${name} too`);
    receivers.add(name);
    const key = secretFile === undefined ? 'secretVariable' : 'secretFile';
    if (secretFile !== undefined && secretVariable !== undefined)
      complain('secretVariable', 'secretFile is given too');
    if (type !== 'webhook' && (secretFile ?? secretVariable) !== undefined)
      complain(key, `messages of type ${type} are not signed`);
  }
  return problems;
}
