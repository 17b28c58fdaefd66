import { describe, expect, test } from 'vitest';
import { createProgress, liveLines, plainLine, recordEvent } from '../../src/cli/progress-model.ts';
import { createPaint, widthOf } from '../../src/cli/text.ts';
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
    const lines = liveLines(model, { width: 120, rows: 24, paint }, 1100);
    expect(lines[2]).toBe('✓    ├─ Image/app              0.1 s');
    expect(lines[3]).toBe(
      '▸    ├─ Snapshot/1a2b3c4d5e6f  unpacking █████░░░░░░░░░░░░░░░ 25%  1.0 MiB/4.0 MiB  1.0 MiB/s',
    );
    expect(lines.at(-1)).toBe('1 of 5 actions done, 1 running');
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
