import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { WatchedList } from '../../src/server/watch.ts';

interface Told {
  id?: string;
  type: string;
  data: { name?: string; value?: number };
}

/** As a browser's EventSource reads it. */
function parse(text: string): Told {
  const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(text)?.[1];
  const id = field('id');
  return {
    ...(id === undefined ? {} : { id }),
    type: field('event') ?? 'comment',
    data: JSON.parse(field('data') ?? '{}') as Told['data'],
  };
}

/** A client that keeps what it is told, as docs/api.md says to. */
class Client {
  readonly items = new Map<string, number>();
  lastEventId: string | undefined;
  readonly types: string[] = [];
  #stream: AsyncGenerator<string> | undefined;
  #stop = new AbortController();

  connect(list: WatchedList): void {
    this.#stop = new AbortController();
    this.#stream = list.follow({ lastEventId: this.lastEventId }, this.#stop.signal);
  }

  async take(): Promise<Told> {
    const { value, done } = (await this.#stream?.next()) ?? {};
    if (done !== false || value === undefined) throw new Error('the stream ended');
    const told = parse(value);
    if (value === ': watching\n\n') return this.take();
    this.types.push(told.type);
    const { name = '', value: number = 0 } = told.data;
    if (told.type === 'reset') this.items.clear();
    if (told.type === 'added' || told.type === 'modified') this.items.set(name, number);
    if (told.type === 'deleted') this.items.delete(name);
    this.lastEventId = told.id ?? this.lastEventId;
    return told;
  }

  async takeUntil(type: string): Promise<void> {
    while ((await this.take()).type !== type);
  }

  async disconnect(): Promise<void> {
    this.#stop.abort();
    await this.#stream?.return(undefined);
  }
}

function numbers(initial: Record<string, number>) {
  const truth = new Map(Object.entries(initial));
  const list = new WatchedList(
    async () => new Map([...truth].map(([name, value]) => [name, { name, value }])),
  );
  return { truth, list };
}

describe('a watched list', () => {
  test('tells what is there, then what changes', async () => {
    const { truth, list } = numbers({ a: 1 });
    await list.refresh();
    const client = new Client();
    client.connect(list);
    await client.takeUntil('synced');
    truth.set('a', 2).set('b', 3);
    await list.refresh();
    truth.delete('a');
    await list.refresh();
    for (let count = 0; count < 3; count++) await client.take();
    expect(client.types).toEqual(['reset', 'added', 'synced', 'modified', 'added', 'deleted']);
    expect(client.items).toEqual(truth);
    await client.disconnect();
  });

  test('tells one that comes back only what it missed, and one with an unknown ID everything', async () => {
    const { truth, list } = numbers({ a: 1, b: 1 });
    await list.refresh();
    const client = new Client();
    client.connect(list);
    await client.takeUntil('synced');
    await client.disconnect();
    truth.set('b', 2);
    await list.refresh();
    client.types.length = 0;
    client.connect(list);
    await client.take();
    expect(client.types).toEqual(['modified']);
    await client.disconnect();
    for (const id of ['elsewhere-1', `${client.lastEventId}9`, 'x', '-', '']) {
      client.lastEventId = id;
      client.connect(list);
      expect((await client.take()).type, id).toBe('reset');
      await client.disconnect();
    }
  });

  test('keeps a bounded log: who falls behind it is told everything anew', async () => {
    const long = 'x'.repeat(2 ** 20);
    let value = 0;
    const list = new WatchedList(async () => new Map([['a', { name: 'a', value, long }]]));
    await list.refresh();
    const client = new Client();
    client.connect(list);
    await client.takeUntil('synced');
    for (value = 1; value < 20; value++) await list.refresh();
    expect((await client.take()).type).toBe('reset');
    await client.takeUntil('synced');
    expect(client.items.get('a')).toBe(19);
    await client.disconnect();
  });

  test('one without news gets a sign of life', async () => {
    const { list } = numbers({});
    const client = new Client();
    client.connect(list);
    await client.takeUntil('synced');
    const next = client.take();
    list.wake();
    expect((await next).type).toBe('comment');
    await client.disconnect();
  });

  test('a reader that fails changes nothing', async () => {
    let fails = false;
    const list = new WatchedList(async () => {
      if (fails) throw new Error('no host');
      return new Map([['a', { name: 'a', value: 1 }]]);
    });
    await list.refresh();
    fails = true;
    await expect(list.refresh()).rejects.toThrow('no host');
    const client = new Client();
    client.connect(list);
    await client.takeUntil('synced');
    expect(client.items.get('a')).toBe(1);
    await client.disconnect();
  });

  test('whatever happens, connected or not, a client that was told all knows the truth', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.oneof(
            fc.record({ do: fc.constant('set'), name: fc.constantFrom('a', 'b', 'c'), value: fc.nat(3) }),
            fc.record({
              do: fc.constant('drop'),
              name: fc.constantFrom('a', 'b', 'c'),
              value: fc.constant(0),
            }),
            fc.record({
              do: fc.constantFrom('refresh', 'leave', 'come', 'read'),
              name: fc.constant(''),
              value: fc.constant(0),
            }),
          ),
          { maxLength: 40 },
        ),
        async (steps) => {
          const { truth, list } = numbers({ a: 0, mark: 0 });
          const client = new Client();
          let isConnected = false;
          const mark = async () => {
            // The last change of all, so that whoever has read it has read everything.
            await list.refresh();
            truth.set('mark', (truth.get('mark') ?? 0) + 1);
            await list.refresh();
          };
          for (const step of steps) {
            if (step.do === 'set') truth.set(step.name, step.value);
            if (step.do === 'drop') truth.delete(step.name);
            if (step.do === 'refresh') await list.refresh();
            if (step.do === 'leave' && isConnected) {
              await client.disconnect();
              isConnected = false;
            }
            if (step.do === 'come' && !isConnected) {
              client.connect(list);
              isConnected = true;
            }
            if (step.do === 'read' && isConnected) {
              await mark();
              await client.take();
            }
          }
          await mark();
          if (!isConnected) client.connect(list);
          while (client.items.get('mark') !== truth.get('mark') || client.types.at(-1) === 'added')
            await client.take();
          expect(client.items).toEqual(truth);
          await client.disconnect();
        },
      ),
      { numRuns: 100 },
    ));
});
