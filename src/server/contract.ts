/** schemas/openapi.json as the server uses it: which paths there are, who may ask, and what they take. */

import { readFileSync } from 'node:fs';

export interface Operation {
  id: string;
  method: 'GET' | 'POST';
  /** As fastify writes it: `/hooks/:source`. */
  url: string;
  /** What it is answered for. */
  needs: 'nothing' | 'token' | 'signature';
  /** JSON Schemas. */
  input: { querystring?: object; body?: object };
}

const CONTRACT = new URL('../../schemas/openapi.json', import.meta.url);

interface Parameter {
  name: string;
  in: 'query' | 'header' | 'path';
  schema: object;
}

interface Described {
  operationId: string;
  security?: readonly Record<string, unknown>[];
  parameters?: object[];
  requestBody?: { content: { 'application/json'?: { schema: object } } };
}

export function readOperations(): Operation[] {
  const contract = JSON.parse(readFileSync(CONTRACT, 'utf8')) as { paths: Record<string, object> };
  return Object.entries(contract.paths).flatMap(([url, methods]) =>
    Object.entries(methods).map(([method, operation]: [string, Described]): Operation => {
      const parameters = resolve(operation.parameters ?? [], contract) as Parameter[];
      const queried = parameters.filter((parameter) => parameter.in === 'query');
      const body = operation.requestBody?.content['application/json']?.schema;
      return {
        id: operation.operationId,
        method: method.toUpperCase() as Operation['method'],
        url: url.replace(/\{(\w+)\}/g, ':$1'),
        needs: needsOf(operation),
        input: {
          querystring: {
            type: 'object',
            properties: Object.fromEntries(queried.map(({ name, schema }) => [name, schema])),
          },
          ...(body === undefined ? {} : { body: resolve(body, contract) as object }),
        },
      };
    }),
  );
}

/** The contract says of all but these that they need the token. */
function needsOf({ security }: Described): Operation['needs'] {
  if (security === undefined) return 'token';
  const [scheme] = security;
  if (scheme === undefined) return 'nothing';
  return 'signature' in scheme ? 'signature' : 'token';
}

/** With what `#/...` stands for in the place of each reference. */
function resolve(value: unknown, contract: object): unknown {
  if (Array.isArray(value)) return value.map((item) => resolve(item, contract));
  if (typeof value !== 'object' || value === null) return value;
  if ('$ref' in value) return resolve(lookUp(String(value.$ref), contract), contract);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolve(item, contract)]));
}

function lookUp(reference: string, contract: object): unknown {
  const steps = reference.replace(/^#\//, '').split('/');
  return steps.reduce<unknown>(
    (value, step) => (value as Record<string, unknown> | undefined)?.[step],
    contract,
  );
}
