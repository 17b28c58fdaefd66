/** Talks to the agent of a root, if one runs. */

import { type IncomingMessage, request } from 'node:http';
import { text } from 'node:stream/consumers';
import { CimletError, classify, isErrorCode } from '../errors.ts';
import { quote } from '../manifests/field-path.ts';
import type { WatchEventType } from '../server/watch.ts';
import type { CliContext } from './context.ts';
import type { GlobalOptions } from './options.ts';

export interface AgentClient {
  get(path: string, signal?: AbortSignal): Promise<unknown>;
  post(path: string, body: object, signal?: AbortSignal): Promise<unknown>;
  /** A list as it is when this resolves, and what happens to it from then on; ends when the agent does. */
  watch(path: string, signal: AbortSignal): Promise<AsyncIterable<WatchEvent>>;
}

export interface WatchEvent {
  type: WatchEventType;
  /** The item that it is about. */
  data: unknown;
}

/** Milliseconds after which an agent counts as one that hangs. */
const TIMEOUTS = {
  /** One that is there answers its health at once. */
  health: 5000,
  /** For an answer to begin: a plan may have to ask registries. */
  answer: 5 * 60_000,
  /** Watchers get a sign of life every 15 s. */
  silence: 60_000,
};

/** The agent of a root; undefined when none runs there, or can, its path being too long for a socket. */
export async function agentOf(
  { services }: CliContext,
  { root }: Pick<GlobalOptions, 'root'>,
): Promise<AgentClient | undefined> {
  let address: string;
  try {
    address = services.agentAddress(root);
  } catch (error) {
    if (isErrorCode(error, 'failed-precondition')) return undefined;
    throw error;
  }
  return connectAgent(address);
}

/** Undefined when no agent listens there. Throws `busy` when one doesn't answer, `failed-precondition` for no agent. */
export async function connectAgent(
  socketPath: string,
  timeouts: Partial<typeof TIMEOUTS> = {},
): Promise<AgentClient | undefined> {
  const { health, answer, silence } = { ...TIMEOUTS, ...timeouts };
  const send = (method: string, path: string, body?: object, signal?: AbortSignal, timeoutMs = answer) =>
    new Promise<IncomingMessage>((resolve, reject) => {
      const headers = body === undefined ? {} : { 'content-type': 'application/json' };
      // Each on a connection of its own: one that is kept may be closed by the agent just then.
      const sent = request({ socketPath, path, method, headers, signal, agent: false }, (response) => {
        clearTimeout(timer);
        resolve(response);
      });
      const giveUp = () => sent.destroy(silent(socketPath));
      const timer = setTimeout(giveUp, timeoutMs);
      sent.on('error', (error) => {
        clearTimeout(timer);
        reject(classify(error, `ask the agent at ${socketPath}`));
      });
      sent.end(body === undefined ? undefined : JSON.stringify(body));
    });
  const parse = (answer: string) => {
    try {
      return JSON.parse(answer) as Record<string, string | undefined>;
    } catch (cause) {
      const message = `what listens at ${socketPath} is no agent of cimlet: it answered ${quote(answer)}`;
      throw new CimletError('failed-precondition', message, { cause });
    }
  };
  const call = async (method: string, path: string, body?: object, signal?: AbortSignal) => {
    const response = await accepted(await send(method, path, body, signal));
    return parse(await text(response)) as unknown;
  };
  const accepted = async (response: IncomingMessage) => {
    if (response.statusCode === 200) return response;
    const { code, message, hint } = parse(await text(response));
    const what = message ?? `the agent answered ${response.statusCode}`;
    throw new CimletError(code === 'not-found' ? code : 'failed-precondition', what, { hint });
  };
  try {
    parse(await text(await accepted(await send('GET', '/healthz', undefined, undefined, health))));
  } catch (error) {
    if (isErrorCode(error, 'not-found', 'unavailable')) return undefined;
    throw error;
  }
  return {
    get: (path, signal) => call('GET', path, undefined, signal),
    post: (path, body, signal) => call('POST', path, body, signal),
    watch: async (path, signal) => {
      const query = `${path}${path.includes('?') ? '&' : '?'}watch`;
      const response = await accepted(await send('GET', query, undefined, signal));
      response.setTimeout(silence, () => response.destroy(silent(socketPath)));
      return readEvents(response);
    },
  };
}

function silent(socketPath: string): CimletError {
  return new CimletError('busy', `the agent at ${socketPath} does not answer`, {
    hint: 'see its log; if it hangs, stop it and start it again',
  });
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
