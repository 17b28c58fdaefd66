/** Talks to the agent of a root, if one runs. */

import { type IncomingMessage, request } from 'node:http';
import { text } from 'node:stream/consumers';
import { CimletError, classify, isErrorCode } from '../errors.ts';
import type { Notice } from '../server/server.ts';

export interface AgentClient {
  get(path: string, signal?: AbortSignal): Promise<unknown>;
  post(path: string, body: object): Promise<unknown>;
  /** What happens from the moment this resolves; ends when the agent does. */
  watch(signal: AbortSignal): Promise<AsyncIterable<Notice>>;
}

/** Undefined when no agent listens there. */
export async function connectAgent(socketPath: string): Promise<AgentClient | undefined> {
  const send = (method: string, path: string, body?: object, signal?: AbortSignal) =>
    new Promise<IncomingMessage>((resolve, reject) => {
      const headers = body === undefined ? {} : { 'content-type': 'application/json' };
      const sent = request({ socketPath, path, method, headers, signal }, resolve);
      sent.on('error', (error) => reject(classify(error, `ask the agent at ${socketPath}`)));
      sent.end(body === undefined ? undefined : JSON.stringify(body));
    });
  const call = async (method: string, path: string, body?: object, signal?: AbortSignal) => {
    const response = await send(method, path, body, signal);
    const answer = JSON.parse(await text(response)) as unknown;
    if (response.statusCode === 200) return answer;
    const { code, message, hint } = answer as { code: string; message: string; hint?: string };
    throw new CimletError(code === 'not-found' ? code : 'failed-precondition', message, { hint });
  };
  try {
    await call('GET', '/healthz');
  } catch (error) {
    if (isErrorCode(error, 'not-found', 'unavailable')) return undefined;
    throw error;
  }
  return {
    get: (path, signal) => call('GET', path, undefined, signal),
    post: (path, body) => call('POST', path, body),
    watch: async (signal) => readNotices(await send('GET', '/api/v1/watch', undefined, signal)),
  };
}

/** Server-sent events, each one line of data. */
async function* readNotices(response: IncomingMessage): AsyncGenerator<Notice> {
  let rest = '';
  response.setEncoding('utf8');
  try {
    for await (const chunk of response) {
      const events = `${rest}${chunk}`.split('\n\n');
      rest = events.pop() ?? '';
      for (const event of events) if (event.startsWith('data: ')) yield JSON.parse(event.slice(6)) as Notice;
    }
  } catch (error) {
    // An agent that is killed breaks off.
    const classified = classify(error, 'watch the agent');
    if (!isErrorCode(classified, 'unavailable')) throw classified;
  }
}
