/** The flow that `apply` and `delete` share: show the plan, ask, execute with progress, sum up. */

import type { ExecutionEvent, ExecutionResult, Plan } from '../reconciler/types.ts';
import { confirm } from './confirm.ts';
import type { CliContext } from './context.ts';
import { formatData, isDataFormat, type OutputFormat } from './output.ts';
import { openProgress } from './progress.ts';
import { renderError } from './render-error.ts';
import { actionLabel, isHindered, renderPlan } from './render-plan.ts';
import { interruptible, listenForInterruption } from './signals.ts';
import { formatDuration } from './text.ts';

export interface CarryOutOptions {
  plan: Plan;
  /** Don't ask. */
  yes: boolean;
  output: OutputFormat;
  execute: (options: {
    signal: AbortSignal;
    onEvent: (event: ExecutionEvent) => void;
  }) => Promise<ExecutionResult>;
}

/** Sets the exit code to 1 when anything failed, was skipped or is blocked, and to 128 + n after a signal. */
export async function carryOut(context: CliContext, options: CarryOutOptions): Promise<void> {
  const { terminal } = context;
  const { plan, output } = options;
  const asData = isDataFormat(output);
  if (!asData) terminal.print(renderPlan(plan, terminal));
  if (isHindered(plan)) context.exitCode = 1;
  if (plan.actions.length === 0) {
    // Nothing to ask or to show, but what crashes left behind is cleaned up.
    const result = await interruptible(context, (signal) =>
      options.execute({ signal, onEvent: () => undefined }),
    );
    if (asData) terminal.print(formatData({ plan, result: resultData(result) }, output));
    return;
  }
  const question = plan.mode === 'delete' ? 'Delete these?' : 'Apply these changes?';
  if (!options.yes && terminal.interactive && !(await confirm(terminal, question, asData))) {
    terminal.printError('Nothing was done.');
    context.exitCode = 1;
    return;
  }
  await execute(context, options);
}

async function execute(context: CliContext, options: CarryOutOptions): Promise<void> {
  const { terminal } = context;
  const { plan, output } = options;
  const asData = isDataFormat(output);
  if (!asData) terminal.print('');
  const started = performance.now();
  const progress = await openProgress(terminal, plan.actions, { toStandardError: asData });
  const interruption = listenForInterruption((message) => progress.say(message));
  let result: ExecutionResult;
  try {
    result = await options.execute({
      signal: interruption.signal,
      onEvent: (event) => progress.handle(event),
    });
  } finally {
    interruption.stop();
    progress.close();
  }
  if (result.failed.length > 0 || result.skipped.length > 0) context.exitCode = 1;
  context.exitCode = interruption.exitCode ?? context.exitCode;
  for (const { action, error } of result.failed) {
    terminal.printError(renderError(error, terminal.paintError, context.debug, actionLabel(action)));
  }
  if (asData) terminal.print(formatData({ plan, result: resultData(result) }, output));
  else terminal.print(['', summaryOf(plan, result, performance.now() - started)]);
}

function summaryOf(plan: Plan, result: ExecutionResult, milliseconds: number): string {
  const done = plan.mode === 'delete' ? 'Deleted' : 'Applied';
  const counts = `${result.succeeded} succeeded, ${result.failed.length} failed, ${result.skipped.length} skipped`;
  return `${done}: ${counts} in ${formatDuration(milliseconds)}.`;
}

function resultData(result: ExecutionResult) {
  return {
    succeeded: result.succeeded,
    failed: result.failed.map(({ action, error }) => ({ id: action.id, message: error.message })),
    skipped: result.skipped.map(({ action, because }) => ({ id: action.id, because })),
  };
}
