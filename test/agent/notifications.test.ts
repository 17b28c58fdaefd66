/** Who is told of what: a real server, a real event log, restarts and failures. */

import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Receiver, runNotifier, type Told } from '../../src/agent/notifications/notifier.ts';
import { isAuthenticWebhook } from '../../src/sources/webhooks.ts';
import type { EventRecord } from '../../src/state/records.ts';
import { openState, type State } from '../../src/state/state.ts';

interface Request {
  path: string | undefined;
  headers: IncomingHttpHeaders;
  body: string;
}

let root: string;
let state: State;
let server: Server;
let address: string;
let requests: Request[];
/** Answers the next request; 200 when there is none. */
let answers: ((response: ServerResponse) => void)[];
let onRequest: () => void;
let notifying: { stop(): Promise<void> } | undefined;
let counted: Told[];
let logged: { fields: Record<string, unknown>; message: string }[];

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'cimlet-notifications-'));
  state = openState(root, { readOnly: false });
  requests = [];
  answers = [];
  logged = [];
  counted = [];
  onRequest = () => undefined;
  server = createServer(async (request, response) => {
    requests.push({ path: request.url, headers: request.headers, body: await text(request) });
    const answer = answers.shift() ?? ((each) => each.end('ok'));
    answer(response);
    onRequest();
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterEach(async () => {
  await notifying?.stop();
  notifying = undefined;
  server.close();
  server.closeAllConnections();
  state.close();
  rmSync(root, { recursive: true, force: true });
});

const receiver = (more: Partial<Receiver> = {}): Receiver => ({
  name: 'someone',
  type: 'webhook',
  url: async () => `${address}/secret-path`,
  warningsOnly: false,
  ...more,
});

function notify(...receivers: Receiver[]): void {
  const stopping = new AbortController();
  const write = (fields: Record<string, unknown>, message: string) => void logged.push({ fields, message });
  const log = { debug: write, info: write, warn: write, error: write };
  const ended = runNotifier(
    { state, receivers, host: 'web-1', log, onTold: (told) => counted.push(told), gatherMs: 0, retryMs: 1 },
    stopping.signal,
  );
  notifying = {
    stop: async () => {
      stopping.abort();
      await ended;
    },
  };
}

const arrived = (count: number) =>
  new Promise<void>((resolve) => {
    onRequest = () => {
      if (requests.length >= count) resolve();
    };
    onRequest();
  });

function happen(key: string, more: Partial<EventRecord> = {}): void {
  state.recordEvent({ key, type: 'Warning', reason: 'Busy', message: 'in use', ...more });
}

const toldKeys = () =>
  requests.flatMap(({ body }) =>
    (JSON.parse(body) as { events: { key: string }[] }).events.map(({ key }) => key),
  );

const answer = (status: number, headers: Record<string, string> = {}) => {
  return (response: ServerResponse) => void response.writeHead(status, headers).end();
};

describe('a receiver', () => {
  it('is told what happens from now on, signed, each event once', async () => {
    happen('Mount/before');
    notify(receiver({ key: async () => 'between us' }));
    happen('Mount/app');
    await arrived(1);
    happen('Mount/app');
    happen('Mount/other', { type: 'Normal', reason: 'Created', message: 'not there' });
    await arrived(2);
    expect(toldKeys()).toEqual(['Mount/app', 'Mount/other']);
    expect(JSON.parse(requests[0]!.body)).toMatchObject({
      version: 1,
      host: 'web-1',
      events: [
        { severity: 'error', kind: 'Mount', name: 'app', reason: 'Busy', message: 'in use', count: 1 },
      ],
    });
    const { headers, body } = requests[0]!;
    expect(isAuthenticWebhook('Generic', 'between us', { headers, body: Buffer.from(body) })).toBe(true);
  });

  it('is told together what happens together', async () => {
    notify(receiver());
    state.transaction(() => {
      for (let index = 0; index < 150; index++) happen(`Mount/${index}`);
    });
    await arrived(2);
    expect(toldKeys()).toHaveLength(150);
    expect(requests).toHaveLength(2);
  });

  it('is asked again until it takes it, and told nothing twice', async () => {
    answers = [answer(503), answer(429, { 'retry-after': '0' }), (response) => response.destroy()];
    notify(receiver());
    happen('Mount/app');
    await arrived(4);
    happen('Mount/last');
    await arrived(5);
    expect(toldKeys()).toEqual([...Array(4).fill('Mount/app'), 'Mount/last']);
    expect(logged.map(({ message }) => message)).toEqual([
      'the receiver could not be notified; trying again',
    ]);
    expect(JSON.stringify(logged)).not.toContain('secret-path');
    expect(counted.slice(0, 4)).toEqual(
      ['failed', 'failed', 'failed', 'sent'].map((result) => ({ receiver: 'someone', result, events: 1 })),
    );
  });

  it('that refuses one message gets the next; redirections are not followed', async () => {
    answers = [answer(404), answer(302, { location: `${address}/elsewhere` })];
    notify(receiver());
    for (const [index, key] of ['Mount/a', 'Mount/b', 'Mount/c'].entries()) {
      happen(key);
      await arrived(index + 1);
    }
    expect(requests.map(({ path }) => path)).not.toContain('/elsewhere');
    expect(logged[0]).toMatchObject({
      message: 'the receiver refused a notification',
      fields: { why: 'it answered 404' },
    });
    expect(logged[1]).toMatchObject({ fields: { why: 'it answered 302' } });
    expect(counted.slice(0, 2)).toEqual(
      [1, 2].map(() => ({ receiver: 'someone', result: 'refused', events: 1 })),
    );
  });

  it('is told after a restart what it was not told before, and nothing else', async () => {
    notify(receiver());
    happen('Mount/told');
    await arrived(1);
    answers = [() => undefined];
    happen('Mount/cut-off');
    await arrived(2);
    await notifying?.stop();
    state.close();
    state = openState(root, { readOnly: false });
    happen('Mount/meanwhile');
    requests = [];
    notify(receiver());
    await arrived(1);
    expect(toldKeys()).toEqual(['Mount/cut-off', 'Mount/meanwhile']);
  });

  it('holds up no other, nor what is recorded', async () => {
    answers = [() => undefined];
    notify(receiver({ name: 'hangs' }), receiver({ name: 'works' }));
    happen('Mount/app');
    await arrived(2);
    happen('Mount/next');
    await arrived(3);
    expect(state.events('Mount/next')).toHaveLength(1);
  });

  it.each<[string, Partial<Receiver>, string[]]>([
    ['everything but layers that went well', {}, ['Mount/web-1', 'Mount/db', 'Snapshot/x/y', 'Source/apps']],
    ['what went wrong', { warningsOnly: true }, ['Mount/db', 'Snapshot/x/y', 'Source/apps']],
    ['kinds', { kinds: ['Merge', 'Source'] }, ['Merge/x/z', 'Source/apps']],
    ['names', { names: ['web-*', 'apps'] }, ['Mount/web-1', 'Source/apps']],
    ['reasons', { reasons: ['SyncFailed'] }, ['Source/apps']],
    ['all filters together', { kinds: ['Mount'], reasons: ['Busy'] }, ['Mount/db']],
  ])('filters: %s', async (_, filters, expected) => {
    notify(receiver(filters));
    state.transaction(() => {
      happen('Mount/web-1', { type: 'Normal', reason: 'Created' });
      happen('Mount/db');
      happen('Snapshot/x/y');
      happen('Merge/x/z', { type: 'Normal', reason: 'Created' });
      happen('Source/apps', { reason: 'SyncFailed' });
    });
    await arrived(1);
    expect(toldKeys()).toEqual(expected);
  });
});

describe('messages', () => {
  const told = async (type: Receiver['type'], ...events: [string, Partial<EventRecord>][]) => {
    notify(receiver({ type }));
    state.transaction(() => {
      for (const [key, more] of events) happen(key, more);
    });
    await arrived(1);
    return JSON.parse(requests[0]!.body) as unknown;
  };

  it('for Slack, with nothing that Slack would read as markup', async () => {
    expect(
      await told(
        'slack',
        ['Mount/app', { message: '<!channel> & <https://evil|here>' }],
        ['Mount/b', { type: 'Normal', reason: 'Repaired', message: 'ok' }],
      ),
    ).toEqual({
      text: [
        '*cimlet on web-1: 2 events, 1 of them warnings*',
        ':red_circle: Mount/app Busy: &lt;!channel&gt; &amp; &lt;https://evil|here&gt;',
        ':large_green_circle: Mount/b Repaired: ok',
      ].join('\n'),
    });
  });

  it('for Teams, as an adaptive card of plain text', async () => {
    const run = (each: object) => ({ type: 'RichTextBlock', inlines: [{ type: 'TextRun', ...each }] });
    expect(await told('teams', ['Mount/app', { message: '[a](http://b) **c**' }])).toEqual({
      type: 'message',
      attachments: [
        {
          contentType: 'application/vnd.microsoft.card.adaptive',
          contentUrl: null,
          content: {
            $schema: 'http://adaptivecards.io/schemas/adaptive-card.json',
            type: 'AdaptiveCard',
            version: '1.2',
            body: [
              run({ text: 'cimlet on web-1', weight: 'Bolder' }),
              run({ text: 'Mount/app Busy: [a](http://b) **c**', color: 'Attention' }),
            ],
            msteams: { width: 'Full' },
          },
        },
      ],
    });
  });

  it('of many events show some and count the rest; long ones are cut', async () => {
    const many = Array.from({ length: 30 }, (_, index): [string, Partial<EventRecord>] => [
      `Mount/${index}`,
      { message: 'x'.repeat(10_000) },
    ]);
    const { text: shown } = (await told('slack', ...many)) as { text: string };
    expect(shown).toContain('and 10 more: cimlet events');
    expect(shown.length).toBeLessThan(15_000);
  });
});
