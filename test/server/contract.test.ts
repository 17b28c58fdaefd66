/** What the agent answers, held against schemas/openapi.json: all of it is described, and all that is described is so. */

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { mountVolumeGuid } from '../../src/hosts/identity.ts';
import { BLOCK_CAPABILITIES } from '../../src/hosts/memory/memory-host.ts';
import { agentSocket } from '../../src/server/address.ts';
import { readOperations } from '../../src/server/contract.ts';
import { openWorld, type World } from '../reconciler/support.ts';
import { serveAgent } from './served-agent.ts';

const SCHEMAS = resolve(import.meta.dirname, '../../schemas');
const BASE = 'https://cimlet.dev/schemas/v1alpha1/';

/** Resources that are ready, merged, suspended, stalled, and not valid. */
const MANIFESTS = `
apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: {name: app}
spec: {source: {ociLayout: ./app}, suspend: false}
---
apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata: {name: merged}
spec: {format: BlockCIM, layers: [{image: app}], merge: true, integrity: Verified, vhdFooter: true}
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: {name: app}
spec: {image: app, path: /mnt/app, retry: {limit: 3}, dependsOn: [{kind: Mount, name: merged}]}
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: {name: merged}
spec: {chain: merged, path: /mnt/merged, access: ReadOnly, driftPolicy: Report}
---
apiVersion: cimlet.dev/v1alpha1
kind: Image
metadata: {name: missing}
spec: {source: {registry: 'registry.example/missing:1'}}
---
apiVersion: cimlet.dev/v1alpha1
kind: Mount
metadata: {name: waits}
spec: {image: missing, path: /mnt/waits, suspend: {reason: a test, by: me}}
---
apiVersion: cimlet.dev/v1alpha1
kind: LayerChain
metadata: {name: mistaken}
spec: {lairs: []}
`;

/** With closed objects, so that what is answered and not described is found. */
function closed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(closed);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.fromEntries(Object.entries(value).map(([key, item]) => [key, closed(item)]));
  if (!('properties' in value) || !('type' in value) || 'additionalProperties' in value) return entries;
  return { ...entries, additionalProperties: false };
}

const read = (name: string) => JSON.parse(readFileSync(join(SCHEMAS, name), 'utf8')) as object;
const contract = read('openapi.json') as { paths: Record<string, Record<string, object>> };

const ajv = new Ajv2020({ strict: false, allErrors: true });
addFormats.default(ajv);
for (const name of readdirSync(SCHEMAS).filter((each) => each.endsWith('.schema.json')))
  ajv.addSchema(read(name));
ajv.addSchema(closed(contract) as object, `${BASE}openapi.json`);

/** Faults of a JSON answer by the schema of that path, method and status; undefined when the contract has no such answer. */
function faultsOf(path: string, method: string, status: number, answer: unknown): unknown {
  const toStep = (step: string) => step.replaceAll('~', '~0').replaceAll('/', '~1');
  const at = (response: string) =>
    `${BASE}openapi.json#/paths/${toStep(path)}/${method}/responses/${response}/content/${toStep('application/json')}/schema`;
  const { responses = {} } = (contract.paths[path]?.[method] ?? {}) as { responses?: object };
  const reference =
    String(status) in responses ? at(String(status)) : `${BASE}openapi.json#/components/schemas/Error`;
  const validate = ajv.getSchema(reference);
  if (validate === undefined) return undefined;
  return validate(answer) ? [] : validate.errors;
}

let root: string;
let world: World;
let end: () => Promise<void>;

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'cimlet-contract-'));
  writeFileSync(join(root, 'all.yaml'), MANIFESTS);
  world = openWorld({ capabilities: BLOCK_CAPABILITIES });
  world.images.set('app', 'ab');
  const hooks = new Map([
    ['here', { provider: 'GitLab' as const, secret: async () => 'between us', ref: { branch: 'main' } }],
  ]);
  const endAgent = await serveAgent(root, world, { hooks });
  end = async () => {
    await endAgent();
    world.close();
    rmSync(root, { recursive: true, force: true });
  };
  world.host.dropMount(mountVolumeGuid('merged'));
});
afterAll(() => end());

async function ask(
  method: string,
  path: string,
  body?: object,
  more: Record<string, string> = {},
): Promise<{ status: number; answer: unknown }> {
  return new Promise((resolveAnswer, reject) => {
    const headers = { ...more, ...(body === undefined ? {} : { 'content-type': 'application/json' }) };
    request({ method, path, headers, socketPath: agentSocket(root) }, async (response) => {
      const content = await text(response);
      const isJson = response.headers['content-type']?.includes('json') === true;
      resolveAnswer({ status: response.statusCode ?? 0, answer: isJson ? JSON.parse(content) : content });
    })
      .on('error', reject)
      .end(body === undefined ? undefined : JSON.stringify(body));
  });
}

describe('answers are as the contract says', () => {
  const plain = readOperations().filter(({ method, id }) => method === 'GET' && id !== 'getMetrics');

  test.each(plain.map(({ id, url }) => [id, url]))('%s', async (_id, path) => {
    const { status, answer } = await ask('GET', path);
    expect(status).toBe(200);
    expect(faultsOf(path, 'get', status, answer), JSON.stringify(answer)).toEqual([]);
    if (typeof answer === 'object' && answer !== null && 'items' in answer)
      expect(answer.items, 'nothing was there to check').not.toEqual([]);
  });

  test.each([
    ['/api/v1/suspend', { key: 'Mount/app', reason: 'a test', by: 'me' }, 200],
    ['/api/v1/resume', { key: 'Mount/app' }, 200],
    ['/api/v1/reconcile', {}, 200],
    ['/api/v1/reconcile', { key: 'Mount/none' }, 404],
    ['/api/v1/suspend', { key: 'Mount/app' }, 400],
    ['/api/v1/suspend', { key: 'Mount/app', reason: '', by: 'me' }, 400],
    ['/api/v1/resume', { key: 'Pod/app' }, 400],
  ])('POST %s %j is answered with %i', async (path, body, expected) => {
    const { status, answer } = await ask('POST', path, body);
    expect(status).toBe(expected);
    expect(faultsOf(path, 'post', status, answer)).toEqual([]);
  });

  test.each([
    ['accepted', 'here', { ref: 'refs/heads/main' }, 'between us', 202],
    ['ignored', 'here', { ref: 'refs/heads/other' }, 'between us', 202],
    ['unsigned', 'here', {}, 'a guess', 401],
    ['too-long', 'here', { text: 'x'.repeat(2 ** 20) }, 'between us', 413],
    ['unknown-source', 'there', {}, 'between us', 404],
  ])('a webhook that is %s, and it is counted', async (result, source, body, token, expected) => {
    const { status, answer } = await ask('POST', `/hooks/${source}`, body, { 'x-gitlab-token': token });
    expect(status).toBe(expected);
    expect(faultsOf('/hooks/{source}', 'post', status, answer)).toEqual([]);
    const { answer: metrics } = await ask('GET', '/metrics');
    const label = source === 'here' ? source : '';
    expect(metrics).toContain(`cimlet_webhooks_total{source="${label}",result="${result}"} 1`);
  });

  test('the watched word is true or false', async () => {
    expect((await ask('GET', '/api/v1/mounts?watch=false')).status).toBe(200);
    expect((await ask('GET', '/api/v1/mounts?watch=perhaps')).status).toBe(400);
  });
});

test('the contract is OpenAPI 3.1: operations have names of their own, answers and descriptions', () => {
  expect(contract).toMatchObject({
    openapi: expect.stringMatching(/^3\.1\./),
    info: { version: 'v1alpha1' },
  });
  const operations = Object.values(contract.paths).flatMap((methods) => Object.values(methods)) as {
    operationId: string;
    summary: string;
    responses: Record<string, object>;
  }[];
  expect(new Set(operations.map(({ operationId }) => operationId)).size).toBe(operations.length);
  for (const { operationId, summary, responses } of operations) {
    expect(summary, operationId).toBeTruthy();
    expect(Object.keys(responses), operationId).toContain(operationId === 'hook' ? '202' : '200');
  }
});

test('every reference of the contract leads somewhere', () => {
  const references = [...JSON.stringify(contract).matchAll(/"\$ref":"([^"]+)"/g)].map(([, ref = '']) => ref);
  const broken = references.filter((ref) => {
    const [file = '', pointer = ''] = ref.split('#');
    let value: unknown = file === '' ? contract : read(file);
    for (const step of pointer.split('/').slice(1))
      value = (value as Record<string, unknown> | undefined)?.[step];
    return value === undefined;
  });
  expect(broken).toEqual([]);
});
