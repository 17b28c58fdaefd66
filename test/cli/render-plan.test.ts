import { describe, expect, test } from 'vitest';
import { renderPlan } from '../../src/cli/render-plan.ts';
import { createPaint, widthOf } from '../../src/cli/text.ts';
import type { Plan } from '../../src/reconciler/types.ts';
import { firstPlan, mergedPlan, messyPlan, planOf } from './plans.ts';

const paint = createPaint(false);
const render = (plan: Plan, width: number) => renderPlan(plan, { width, paint });

describe.each([80, 200])('at %d columns', (width) => {
  test.each([
    ['first', firstPlan],
    ['messy', messyPlan],
    ['merged', mergedPlan],
  ])('the %s plan', async (name, plan) => {
    const lines = render(plan, width);
    await expect(`${lines.join('\n')}\n`).toMatchFileSnapshot(`golden/plan-${name}-${width}.txt`);
  });

  test('no line is wider, but for the summary and words that cannot be broken', () => {
    const tooWide = render(messyPlan, width)
      .slice(0, -1)
      .filter((line) => widthOf(line) > width);
    expect(tooWide.filter((line) => line.trim().includes(' '))).toEqual([]);
  });
});

test('the summary is one line, the last, whatever the plan', () => {
  for (const plan of [firstPlan, messyPlan]) {
    const lines = render(plan, 80);
    expect(lines.filter((line) => line.startsWith('Plan:'))).toEqual([lines.at(-1)]);
  }
  expect(render(firstPlan, 80).at(-1)).toBe('Plan: 5 to create (12.3 MiB to unpack).');
});

test('an empty plan says so and nothing else', () => {
  expect(render(planOf([]), 80)).toEqual(['No changes. The host matches the manifests.']);
  const drifted = { ...planOf([]), notes: [{ message: 'drift, only reported', drift: true as const }] };
  expect(render(drifted, 80).at(-1)).toBe(
    'No changes. There is drift that is only reported (driftPolicy: Report).',
  );
  expect(render(planOf([], { mode: 'delete' }), 80)).toEqual(['No changes. There is nothing to delete.']);
});

test('a plan in which all is blocked is not called empty', () => {
  const blocked = planOf([], { blocked: messyPlan.blocked });
  expect(render(blocked, 80).at(-1)).toBe('Plan: 2 blocked.');
});

test('an offline plan says what it does not know', () => {
  const offline = { ...firstPlan, host: { kind: 'offline' as const, root: '/r' } };
  expect(render(offline, 80)[0]).toMatch(/^Planned offline/);
});

test('colour changes nothing but colour', () => {
  const coloured = renderPlan(messyPlan, { width: 80, paint: createPaint(true) }).join('\n');
  expect(coloured).toContain('\u001b[');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colour codes
  expect(coloured.replace(/\u001b\[\d+m/g, '')).toBe(render(messyPlan, 80).join('\n'));
});
