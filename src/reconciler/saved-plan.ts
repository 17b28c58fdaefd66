/** `plan --out` and `apply plan.json`: exactly that, or a refusal that says what moved. */

import { CimletError } from '../errors.ts';
import type { SourceFile } from '../manifests/resources.ts';
import { digestOf } from './canonical.ts';
import type { Plan, PlannedAction, SavedPlan } from './types.ts';

/** How many of the things that moved are named. */
const NAMED = 5;

/** `sha256:...` over what the plan's actions do, for which host; not over their wording. */
function fingerprintPlan(plan: Plan): string {
  return digestOf({ mode: plan.mode, host: plan.host, actions: plan.actions.map(essenceOf) });
}

function essenceOf(action: PlannedAction): unknown {
  const { id, verb, reasons, dependsOn, work } = action;
  return { id, verb, reasons: reasons.map(({ code }) => code), dependsOn, work };
}

export function savePlan(plan: Plan, inputs: SavedPlan['inputs']): SavedPlan {
  return { formatVersion: 1, plan, inputs, fingerprint: fingerprintPlan(plan) };
}

/**
 * Compares a saved plan with one made now from the same arguments. Throws `failed-precondition` naming the files and
 * actions that moved, `corrupt` when the saved plan isn't what was saved.
 */
export function checkSavedPlan(saved: SavedPlan, now: { plan: Plan; files: readonly SourceFile[] }): void {
  if (saved.formatVersion !== 1 || fingerprintPlan(saved.plan) !== saved.fingerprint) {
    throw new CimletError('corrupt', 'check the saved plan: it was changed after it was saved', {
      hint: 'plan again with --out',
    });
  }
  const moved = [...compareFiles(saved.inputs.files, now.files), ...compareActions(saved.plan, now.plan)];
  if (moved.length === 0) return;
  const more = moved.length > NAMED ? `; and ${moved.length - NAMED} more` : '';
  throw new CimletError(
    'failed-precondition',
    `check the saved plan: it no longer fits: ${moved.slice(0, NAMED).join('; ')}${more}`,
    { hint: 'plan again, look at the new plan, and apply that' },
  );
}

function compareFiles(saved: readonly SourceFile[], now: readonly SourceFile[]): string[] {
  const before = new Map(saved.map(({ path, digest }) => [path, digest]));
  const after = new Map(now.map(({ path, digest }) => [path, digest]));
  const moved: string[] = [];
  for (const [path, digest] of before) {
    const current = after.get(path);
    if (current === undefined) moved.push(`${path} is gone`);
    else if (current !== digest) moved.push(`${path} changed`);
  }
  for (const path of after.keys()) if (!before.has(path)) moved.push(`${path} is new`);
  return moved;
}

function compareActions(saved: Plan, now: Plan): string[] {
  if (fingerprintPlan(saved) === fingerprintPlan(now)) return [];
  if (saved.host.kind !== now.host.kind || saved.host.root !== now.host.root) {
    const name = ({ host }: Plan) =>
      host.kind === 'offline' ? 'no host (--offline)' : `${host.kind} host ${host.root}`;
    return [`it was made for ${name(saved)}, not for ${name(now)}`];
  }
  const before = new Map(saved.actions.map((action) => [action.id, action]));
  const after = new Map(now.actions.map((action) => [action.id, action]));
  const moved: string[] = [];
  for (const [id, action] of before) {
    const current = after.get(id);
    if (current === undefined) moved.push(`there is nothing to ${action.verb} any more for ${id}`);
    else if (current.verb !== action.verb) moved.push(`${id} is to ${current.verb}, not to ${action.verb}`);
    else if (digestOf(essenceOf(current)) !== digestOf(essenceOf(action)))
      moved.push(`${action.verb} ${id} differs`);
  }
  for (const [id, action] of after) if (!before.has(id)) moved.push(`there is now ${id} to ${action.verb}`);
  return moved;
}
