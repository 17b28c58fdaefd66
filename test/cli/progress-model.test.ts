import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { liveLines } from '../../src/cli/progress-lines.ts';
import { createProgress, plainLine, recordEvent } from '../../src/cli/progress-model.ts';
import { Rate } from '../../src/cli/rate.ts';
import { createPaint, widthOf } from '../../src/cli/text.ts';
import { transferText } from '../../src/cli/transfer-text.ts';
import { CimletError } from '../../src/errors.ts';
import type { ExecutionEvent, PlannedAction } from '../../src/reconciler/types.ts';
import { firstPlan, mergedPlan, messyPlan, planOf } from './plans.ts';

const paint = createPaint(false);
const action = (id: string): PlannedAction => {
  const found = firstPlan.actions.find((each) => each.id.startsWith(id));
  if (found === undefined) throw new Error(`no ${id}`);
  return found;
};
const base = action('Snapshot/');
const progressed = (done: number): ExecutionEvent => ({
  type: 'action.progressed',
  action: base,
  phase: 'unpacking',
  done,
  total: 1000,
});

function run(events: [ExecutionEvent, number][]) {
  const model = createProgress(firstPlan.actions);
  for (const [event, now] of events) recordEvent(model, event, now);
  return model;
}

describe('plain lines', () => {
  test('progress is said about every ten per cent, states always', () => {
    const steps = new Map<string, string>();
    const lines = Array.from({ length: 1001 }, (_, done) => plainLine(progressed(done), steps));
    const said = lines.filter((line) => line !== undefined);
    expect(said).toHaveLength(11);
    expect(said[0]).toBe('Snapshot/1a2b3c4d5e6f unpacking 0%');
    expect(said.at(-1)).toBe('Snapshot/1a2b3c4d5e6f unpacking 100%');
  });

  test.each<[ExecutionEvent, string]>([
    [{ type: 'action.started', action: base }, 'Snapshot/1a2b3c4d5e6f started (create)'],
    [{ type: 'action.succeeded', action: base, durationMs: 1234 }, 'Snapshot/1a2b3c4d5e6f done in 1.2 s'],
    [
      {
        type: 'action.failed',
        action: base,
        error: new CimletError('corrupt', 'bad\u001b layer', { hint: 'get it again' }),
      },
      'Snapshot/1a2b3c4d5e6f failed: bad\\x1b layer; hint: get it again',
    ],
    [
      { type: 'action.skipped', action: base, because: 'Image/app failed' },
      'Snapshot/1a2b3c4d5e6f skipped: Image/app failed',
    ],
    [
      {
        type: 'action.retrying',
        action: base,
        attempt: 1,
        delayMs: 2000,
        error: new CimletError('busy', 'layer is busy'),
      },
      'Snapshot/1a2b3c4d5e6f retrying: layer is busy; attempt 2 in 2.0 s',
    ],
  ])('$type', (event, line) => expect(plainLine(event, new Map())).toBe(line));
});

describe('the live tree', () => {
  test('puts what is needed under what needs it, snapshots side by side', () => {
    const lines = liveLines(run([]), { width: 80, rows: 24, paint }, 0);
    expect(lines).toEqual([
      '· Mount/app-view               waiting',
      '· └─ LayerChain/app            waiting',
      '·    ├─ Image/app              waiting',
      '·    ├─ Snapshot/1a2b3c4d5e6f  waiting',
      '·    └─ Snapshot/99887766aabb  waiting',
      '0 of 5 actions done',
    ]);
  });

  test('shows a merged CIM between the chain and its layers', () => {
    const lines = liveLines(createProgress(mergedPlan.actions), { width: 80, rows: 24, paint }, 0);
    expect(lines.slice(0, 6)).toEqual([
      '· Mount/app-view                  waiting',
      '· └─ LayerChain/app               waiting',
      '·    └─ Merge/99887766aabb        waiting',
      '·       ├─ Image/app              waiting',
      '·       ├─ Snapshot/1a2b3c4d5e6f  waiting',
      '·       └─ Snapshot/99887766aabb  waiting',
    ]);
  });

  test('shows bar, bytes and rate while something runs', () => {
    const image = action('Image/');
    const model = run([
      [{ type: 'action.succeeded', action: image, durationMs: 100 }, 100],
      [{ type: 'action.started', action: base }, 100],
      [{ type: 'action.progressed', action: base, phase: 'unpacking', done: 0, total: 4_194_304 }, 100],
      [
        { type: 'action.progressed', action: base, phase: 'unpacking', done: 1_048_576, total: 4_194_304 },
        600,
      ],
    ]);
    const lines = liveLines(model, { width: 120, rows: 24, paint }, 700);
    expect(lines[2]).toBe('✓    ├─ Image/app              0.1 s');
    expect(lines[3]).toBe(
      '▸    ├─ Snapshot/1a2b3c4d5e6f  unpacking █████░░░░░░░░░░░░░░░ 25%  1.0 MiB/4.0 MiB  2.0 MiB/s  1s left',
    );
    expect(lines.slice(5)).toEqual([
      '1 of 5 actions done, 1 running',
      expect.stringMatching(/^unpacking █*░* \d+% {2}1\.0 MiB\/[\d.]+ MiB {2}2\.0 MiB\/s {2}\d+s left$/),
    ]);
  });

  test('shows what is fetched for an image at the layers that wait for it, and all of it below', () => {
    const image = action('Image/');
    const { blob } = (base.work as Extract<PlannedAction['work'], { do: 'buildLayer' }>).request;
    const fetched = (done: number): ExecutionEvent => ({
      type: 'action.progressed',
      action: image,
      phase: 'downloading',
      done,
      total: 4096,
      blob: { digest: blob.digest, done, total: 2048 },
    });
    const model = run([
      [{ type: 'action.started', action: image }, 0],
      [fetched(1024), 0],
    ]);
    const show = () => liveLines(model, { width: 100, rows: 24, paint }, 0);
    expect(show().slice(2)).toEqual([
      '▸    ├─ Image/app              downloading █████░░░░░░░░░░░░░░░ 25%  1.0 KiB/4.0 KiB',
      '↓    ├─ Snapshot/1a2b3c4d5e6f  downloading ██████████░░░░░░░░░░ 50%  1.0 KiB/2.0 KiB',
      // Of the same blob.
      '↓    └─ Snapshot/99887766aabb  downloading ██████████░░░░░░░░░░ 50%  1.0 KiB/2.0 KiB',
      '0 of 5 actions done, 1 running',
      'downloading █████░░░░░░░░░░░░░░░ 25%  1.0 KiB/4.0 KiB',
    ]);
    recordEvent(model, fetched(2048), 10);
    expect(show()[3]).toBe('·    ├─ Snapshot/1a2b3c4d5e6f  downloaded');
    recordEvent(model, { type: 'action.started', action: base }, 20);
    expect(show()[3]).toBe('▸    ├─ Snapshot/1a2b3c4d5e6f  create');
  });

  test.each([20, 40, 80, 200])('fits %d columns', (width) => {
    const model = run([
      [{ type: 'action.started', action: base }, 0],
      [progressed(500), 500],
      [{ type: 'action.failed', action: action('Mount/'), error: new Error('x'.repeat(300)) }, 600],
    ]);
    const lines = liveLines(model, { width, rows: 24, paint }, 1000);
    expect(lines.filter((line) => widthOf(line) > width)).toEqual([]);
  });

  test('shows each action once, deletions in their order', () => {
    const model = createProgress(messyPlan.actions);
    const lines = liveLines(model, { width: 100, rows: 24, paint }, 0);
    expect(lines).toHaveLength(messyPlan.actions.length + 1);
    expect(lines.filter((line) => line.includes('Mount/tools'))).toHaveLength(1);
  });

  test('keeps to what moves when the plan is taller than the terminal', () => {
    const many = planOf(
      Array.from({ length: 500 }, (_, index) => ({
        ...action('Image/'),
        id: `Image/${index}`,
        name: `${index}`,
      })),
    );
    const model = createProgress(many.actions);
    for (const each of many.actions.slice(0, 3))
      recordEvent(model, { type: 'action.started', action: each }, 0);
    const lines = liveLines(model, { width: 80, rows: 10, paint }, 0);
    expect(lines).toHaveLength(4);
    expect(lines.at(-1)).toBe('0 of 500 actions done, 3 running');
  });
});

test('a transfer is told in as much as there is room for', () => {
  const transfer = fc.record({
    phase: fc.constantFrom('downloading', 'unpacking', 'exporting'),
    done: fc.nat(),
    total: fc.nat(),
    rate: fc.option(fc.nat(), { nil: undefined }),
  });
  fc.assert(
    fc.property(transfer, fc.integer({ min: 1, max: 120 }), (each, columns) => {
      expect(widthOf(transferText(each, columns))).toBeLessThanOrEqual(columns);
    }),
  );
  const half = { phase: 'downloading', done: 5 << 20, total: 10 << 20, rate: 1 << 20 };
  expect([100, 60, 50, 40, 28, 15, 3].map((columns) => transferText(half, columns))).toEqual([
    'downloading ██████████░░░░░░░░░░ 50%  5.0 MiB/10.0 MiB  1.0 MiB/s  5s left',
    'downloading █████░░░░░ 50%  1.0 MiB/s  5s left',
    'downloading █████░░░░░ 50%  1.0 MiB/s  5s left',
    'downloading █████░░░░░ 50%  5s left',
    'downloading ███░░ 50%',
    'downloading 50%',
    '50%',
  ]);
});

test('a rate follows what came in the last seconds, and falls when nothing comes', () => {
  const rate = new Rate();
  expect(rate.perSecond(0)).toBeUndefined();
  for (let second = 0; second <= 20; second++) rate.observe(second * 1000, second * 1000);
  expect(rate.perSecond(20_000)).toBeCloseTo(1000);
  for (let second = 1; second <= 20; second++) rate.observe(20_000 + second * 5000, (20 + second) * 1000);
  expect(rate.perSecond(40_000)).toBeGreaterThan(4900);
  expect(rate.perSecond(60_000)).toBeLessThan(50);
});
