/** Talks to the agent of a root, if one runs. */

import { type IncomingMessage, request } from 'node:http';
import { text } from 'node:stream/consumers';
import { CimletError, classify, isErrorCode } from '../errors.ts';
import type { WatchEventType } from '../server/watch.ts';

export interface AgentClient {
  get(path: string, signal?: AbortSignal): Promise<unknown>;
  post(path: string, body: object): Promise<unknown>;
  /** A list as it is when this resolves, and what happens to it from then on; ends when the agent does. */
  watch(path: string, signal: AbortSignal): Promise<AsyncIterable<WatchEvent>>;
}

export interface WatchEvent {
  type: WatchEventType;
  /** The item that it is about. */
  data: unknown;
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
    const response = await accepted(await send(method, path, body, signal));
    return JSON.parse(await text(response)) as unknown;
  };
  const accepted = async (response: IncomingMessage) => {
    if (response.statusCode === 200) return response;
    const { code, message, hint } = JSON.parse(await text(response)) as Record<
      'code' | 'message' | 'hint',
      string
    >;
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
    watch: async (path, signal) => {
      const query = `${path}${path.includes('?') ? '&' : '?'}watch`;
      return readEvents(await accepted(await send('GET', query, undefined, signal)));
    },
  };
}

/** Server-sent events. Comments are left out. */
async function* readEvents(response: IncomingMessage): AsyncGenerator<WatchEvent> {
  let rest = '';
  response.setEncoding('utf8');
  try {
    for await (const chunk of response) {
      const blocks = `${rest}${chunk}`.split('\n\n');
      rest = blocks.pop() ?? '';
      for (const block of blocks) {
        const { event, data } = Object.fromEntries(block.split('\n').map(splitField));
        if (event !== undefined && data !== undefined)
          yield { type: event as WatchEventType, data: JSON.parse(data) as unknown };
      }
    }
  } catch (error) {
    // An agent that is killed breaks off.
    const classified = classify(error, 'watch the agent');
    if (!isErrorCode(classified, 'unavailable')) throw classified;
  }
}

function splitField(line: string): [name: string, value: string] {
  const colon = line.indexOf(': ');
  return [line.slice(0, Math.max(0, colon)), line.slice(colon + 2)];
}
