/** Terraform's plan of resources that need no provider, one of them changed. */

import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { medianSeconds } from './report.ts';

const RUNS = 3;

/** Seconds, with `count` resources that were applied; undefined where terraform isn't installed. */
export async function medianTerraformPlan(directory: string, count: number): Promise<number | undefined> {
  if (spawnSync('terraform', ['version'], { stdio: 'ignore' }).status !== 0) return undefined;
  mkdirSync(directory);
  writeResources(directory, count, 'before');
  terraform(directory, 'init', '-input=false');
  terraform(directory, 'apply', '-auto-approve', '-input=false', '-parallelism=100');
  writeResources(directory, count, 'after');
  return medianSeconds(RUNS, () => terraform(directory, 'plan', '-input=false', '-lock=false'));
}

function writeResources(directory: string, count: number, first: string): void {
  const blocks = Array.from(
    { length: count },
    (_, index) => `resource "terraform_data" "r${index}" {\n  input = "${index === 0 ? first : 'same'}"\n}\n`,
  );
  writeFileSync(join(directory, 'main.tf'), blocks.join('\n'));
}

function terraform(directory: string, ...args: string[]): void {
  const { status, stderr } = spawnSync('terraform', [...args, '-no-color'], {
    cwd: directory,
    encoding: 'utf8',
    maxBuffer: 1 << 30,
    env: { ...process.env, CHECKPOINT_DISABLE: '1' },
  });
  if (status !== 0) throw new Error(`terraform ${args.join(' ')}: exit ${status}\n${stderr}`);
}
