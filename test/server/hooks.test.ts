import { fastify } from 'fastify';
import { expect, it } from 'vitest';
import { addHooks } from '../../src/server/hooks.ts';

it('webhooks without the right signature are counted each, and logged once in a while', async () => {
  const logged: string[] = [];
  const results: string[] = [];
  const nothing = () => undefined;
  const server = fastify();
  const hook = { provider: 'Generic' as const, secret: async () => 'secret', ref: undefined };
  addHooks(server, new Map([['apps', hook]]), {
    look: nothing,
    log: { debug: nothing, info: nothing, warn: (_fields, message) => logged.push(message), error: nothing },
    onHook: (_source, result) => results.push(result),
  });
  try {
    for (let call = 0; call < 5; call++)
      expect(await server.inject({ method: 'POST', url: '/hooks/apps', payload: {} })).toMatchObject({
        statusCode: 401,
      });
  } finally {
    await server.close();
  }
  expect(results).toEqual(Array(5).fill('unsigned'));
  expect(logged).toHaveLength(1);
});
