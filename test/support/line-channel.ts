/** JSON messages, one a line, over a socket of this machine: how tests talk with a process that has no usable pipes. */

import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

export class LineChannel<Out, In> {
  readonly #socket: Socket;
  readonly #lines: AsyncIterator<string>;

  constructor(socket: Socket) {
    this.#socket = socket;
    // A peer that was killed resets the connection; that it is gone shows as the end of its messages.
    socket.on('error', () => undefined);
    this.#lines = createInterface({ input: socket, crlfDelay: Number.POSITIVE_INFINITY })[
      Symbol.asyncIterator
    ]();
  }

  send(message: Out): void {
    this.#socket.write(`${JSON.stringify(message)}\n`);
  }

  /** The next message; undefined when the other side has closed, or died. */
  async receive(): Promise<In | undefined> {
    const { done, value } = await this.#lines.next();
    return done === true ? undefined : (JSON.parse(value) as In);
  }

  close(): void {
    this.#socket.destroy();
  }
}

export async function connectChannel<Out, In>(port: number): Promise<LineChannel<Out, In>> {
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  return new LineChannel(socket);
}

/** Waits for one connection. `start` starts whoever is to make it, and fails when that one ended instead. */
export async function acceptChannel<Out, In>(
  start: (port: number) => Promise<{ ended: Promise<unknown> }>,
): Promise<LineChannel<Out, In>> {
  const server = createServer({ pauseOnConnect: false });
  try {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const connection = once(server, 'connection') as Promise<[Socket]>;
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('the server has no port');
    const { ended } = await start(address.port);
    const connected = await Promise.race([connection, ended]);
    if (!Array.isArray(connected)) throw new Error(`ended before it connected: ${JSON.stringify(connected)}`);
    return new LineChannel(connected[0] as Socket);
  } finally {
    server.close();
  }
}
