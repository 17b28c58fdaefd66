/** A proxy in front of a registry that spoils what it is told to, and writes down what it was asked. */

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Asked {
  method: string;
  /** `manifest`, `config` and `layer` are what pulls ask for; `token` is a token server's. */
  kind: 'manifest' | 'blob' | 'other';
  path: string;
  range: string | undefined;
  authorization: string | undefined;
  ifNoneMatch?: string | undefined;
}

/** What the registry answered, or undefined to let it through. Gets `respond` to answer in its place. */
export type Fault = (context: {
  asked: Asked;
  /** The registry's own answer. */
  answer: Answer;
  response: ServerResponse;
}) => 'spoiled' | 'untouched' | Promise<'spoiled' | 'untouched'>;

export interface Answer {
  status: number;
  headers: Record<string, string>;
  body: Buffer;
}

export interface FaultProxy {
  host: string;
  asked: Asked[];
  /** Consulted for every request until it is taken away. */
  fault: Fault | undefined;
  close(): Promise<void>;
}

export async function startFaultProxy(upstream: string): Promise<FaultProxy> {
  const server = createServer((request, response) => {
    handle(request, response).catch((error: unknown) => {
      response.destroy(error instanceof Error ? error : undefined);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const proxy: FaultProxy = {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked: [],
    fault: undefined,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', url: path = '', headers } = request;
    const asked: Asked = {
      method,
      kind: kindOf(path),
      path,
      range: headers.range,
      authorization: headers.authorization,
      ifNoneMatch: headers['if-none-match'],
    };
    proxy.asked.push(asked);
    const forwarded: Record<string, string> = {};
    for (const name of ['accept', 'range', 'authorization', 'if-none-match']) {
      const value = headers[name];
      if (typeof value === 'string') forwarded[name] = value;
    }
    const found = await fetch(`http://${upstream}${path}`, {
      method,
      headers: forwarded,
      redirect: 'manual',
    });
    const body = Buffer.from(await found.arrayBuffer());
    const answer = { status: found.status, headers: Object.fromEntries(found.headers), body };
    if (method !== 'HEAD') answer.headers['content-length'] = String(body.length);
    if (proxy.fault !== undefined && (await proxy.fault({ asked, answer, response })) === 'spoiled') return;
    response.writeHead(answer.status, answer.headers);
    response.end(body);
  }
  return proxy;
}

function kindOf(path: string): Asked['kind'] {
  if (/\/manifests\//.test(path)) return 'manifest';
  return /\/blobs\//.test(path) ? 'blob' : 'other';
}

/** Applies a fault to the first `times` requests that `matches`. */
export function times(count: number, matches: (asked: Asked) => boolean, fault: Fault): Fault {
  let left = count;
  return (context) => {
    if (left === 0 || !matches(context.asked)) return 'untouched';
    left--;
    return fault(context);
  };
}

export const status =
  (code: number, headers: Record<string, string> = {}, body = ''): Fault =>
  ({ response }) => {
    response.writeHead(code, { ...headers, 'content-length': Buffer.byteLength(body) });
    response.end(body);
    return 'spoiled';
  };

/** Sends `offset` bytes, negative ones from the end, then cuts the connection. */
export const cutAfter =
  (offset: number): Fault =>
  ({ answer, response }) => {
    const sent = answer.body.subarray(0, offset < 0 ? answer.body.length + offset : offset);
    response.writeHead(answer.status, answer.headers);
    response.flushHeaders();
    if (sent.length === 0) response.destroy();
    else response.write(sent, () => response.destroy());
    return 'spoiled';
  };

/** Ends after `offset` bytes as if that were all. */
export const endAfter =
  (offset: number): Fault =>
  ({ answer, response }) => {
    const body = answer.body.subarray(0, offset < 0 ? Math.max(0, answer.body.length + offset) : offset);
    response.writeHead(answer.status, { ...answer.headers, 'content-length': body.length });
    response.end(body);
    return 'spoiled';
  };

/** The right length and headers, but a byte is another one. */
export const flipByte: Fault = ({ answer, response }) => {
  const body = Buffer.from(answer.body);
  const at = body.length >> 1;
  body[at] = (body[at] ?? 0) ^ 1;
  response.writeHead(answer.status, answer.headers);
  response.end(body);
  return 'spoiled';
};

/** Declares fewer or more bytes than there are, and sends what there is. */
export const wrongLength =
  (difference: number): Fault =>
  ({ answer, response }) => {
    const declared = answer.body.length + difference;
    const head = [
      `HTTP/1.1 ${answer.status} OK`,
      ...Object.entries({ ...answer.headers, 'content-length': declared, connection: 'close' }).map(
        ([name, value]) => `${name}: ${value}`,
      ),
    ];
    response.socket?.write(`${head.join('\r\n')}\r\n\r\n`);
    response.socket?.end(answer.body);
    return 'spoiled';
  };

/** Never ends, and never says how long it is. */
export const endless: Fault = ({ asked, answer, response }) => {
  if (asked.method === 'HEAD') return 'untouched';
  const { 'content-length': _length, ...headers } = answer.headers;
  response.writeHead(answer.status, headers);
  response.write(answer.body);
  const chunk = Buffer.alloc(256 << 10, ' ');
  const more = () => {
    while (!response.destroyed && response.socket?.destroyed === false && response.write(chunk));
  };
  response.on('drain', more);
  response.on('error', () => undefined);
  more();
  return 'spoiled';
};

/** Sends a little, then nothing any more, and keeps the connection. */
export const stall =
  (offset: number): Fault =>
  ({ answer, response }) => {
    response.writeHead(answer.status, answer.headers);
    response.write(answer.body.subarray(0, offset));
    return 'spoiled';
  };

/** Sends everything, a byte at a time. */
export const drip: Fault = ({ asked, answer, response }) => {
  if (asked.method === 'HEAD') return 'untouched';
  response.writeHead(answer.status, answer.headers);
  let sent = 0;
  const timer = setInterval(() => {
    if (sent === answer.body.length) response.end();
    else response.write(answer.body.subarray(sent, ++sent));
  }, 10);
  response.on('close', () => clearInterval(timer));
  return 'spoiled';
};
