/** Events as the messages that each kind of receiver understands. One message for all that came together. */

import type { News } from '../../state/records.ts';

export type ReceiverType = 'webhook' | 'slack' | 'teams';

export interface Batch {
  /** Name of this machine. */
  host: string;
  /** One or more, the oldest first. */
  events: readonly News[];
}

/** What a person is shown of one batch; the rest is counted. */
const LINES_SHOWN = 20;
const LONGEST_LINE = 500;

/** The body of a request, JSON. */
export function renderMessage(type: ReceiverType, batch: Batch): string {
  return JSON.stringify(RENDERERS[type](batch));
}

const RENDERERS: Record<ReceiverType, (batch: Batch) => object> = {
  webhook: ({ host, events }) => ({
    version: 1,
    host,
    events: events.map(({ seq, type, ...event }) => ({
      id: seq,
      severity: type === 'Warning' ? 'error' : 'info',
      ...partsOf(event.key),
      ...event,
    })),
  }),
  // https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks, formatting-message-text for the escapes.
  slack: (batch) => {
    const { title, lines } = summarise(batch);
    const bullets = lines.map(
      ({ isWarning, text }) => `${isWarning ? ':red_circle:' : ':large_green_circle:'} ${escapeSlack(text)}`,
    );
    return { text: [`*${escapeSlack(title)}*`, ...bullets].join('\n') };
  },
  // An Adaptive Card, as the Teams workflow "post to a channel when a webhook request is received" takes it
  // (https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using). Runs of text
  // aren't read as Markdown; 1.2 is the version that phones show, too.
  teams: (batch) => {
    const { title, lines } = summarise(batch);
    const paragraph = (run: object) => ({
      type: 'RichTextBlock',
      inlines: [{ type: 'TextRun', ...run }],
    });
    const content = {
      $schema: 'http://adaptivecards.io/schemas/adaptive-card.json',
      type: 'AdaptiveCard',
      version: '1.2',
      body: [
        paragraph({ text: title, weight: 'Bolder' }),
        ...lines.map(({ isWarning, text }) => paragraph({ text, color: isWarning ? 'Attention' : 'Good' })),
      ],
      msteams: { width: 'Full' },
    };
    const attachment = { contentType: 'application/vnd.microsoft.card.adaptive', contentUrl: null, content };
    return { type: 'message', attachments: [attachment] };
  },
};

/** `Mount/app`; the names of layers hold slashes, `Host` has none. */
export function partsOf(key: string): { kind: string; name: string } {
  const slash = key.indexOf('/');
  return slash < 0 ? { kind: key, name: '' } : { kind: key.slice(0, slash), name: key.slice(slash + 1) };
}

function summarise({ host, events }: Batch): {
  title: string;
  lines: { isWarning: boolean; text: string }[];
} {
  const warnings = events.filter(({ type }) => type === 'Warning').length;
  const what = events.length === 1 ? '' : `: ${events.length} events, ${warnings} of them warnings`;
  const lines = events.slice(0, LINES_SHOWN).map(({ key, type, reason, message }) => {
    const text = `${key} ${reason}: ${message}`;
    return {
      isWarning: type === 'Warning',
      text: text.length > LONGEST_LINE ? `${text.slice(0, LONGEST_LINE)}...` : text,
    };
  });
  const more = events.length - lines.length;
  if (more > 0) lines.push({ isWarning: warnings > 0, text: `and ${more} more: cimlet events` });
  return { title: `cimlet on ${host}${what}`, lines };
}

function escapeSlack(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
