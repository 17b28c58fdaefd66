/** Terraform's plan of resources that need no provider, one of them changed. */

import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A root module whose resources are applied but for one. */
export interface TerraformRoot {
  plan(): void;
}

/** Undefined where terraform isn't installed. */
export function makeTerraformRoot(directory: string, count: number): TerraformRoot | undefined {
  if (spawnSync('terraform', ['version'], { stdio: 'ignore' }).status !== 0) return undefined;
  mkdirSync(directory);
  const terraform = (...args: string[]) => runTerraform(directory, args);
  // Applying thousands takes a quarter of an hour: what it records of two is repeated for all.
  writeModule(directory, 2, 'before');
  terraform('init', '-input=false');
  terraform('apply', '-auto-approve', '-input=false');
  repeatInstances(join(directory, 'terraform.tfstate'), count);
  writeModule(directory, count, 'after');
  return {
    plan: () => {
      const [summary] = /Plan:.*/.exec(terraform('plan', '-input=false', '-lock=false')) ?? [];
      if (summary !== 'Plan: 0 to add, 1 to change, 0 to destroy.')
        throw new Error(`terraform takes the resources for others than were applied: ${summary}`);
    },
  };
}

function writeModule(directory: string, count: number, first: string): void {
  const text = `resource "terraform_data" "r" {\n  count = ${count}\n  input = count.index == 0 ? "${first}" : "same"\n}\n`;
  writeFileSync(join(directory, 'main.tf'), text);
}

interface TerraformState {
  resources: { instances: { index_key: number; attributes: { id: string } }[] }[];
}

/** Of the resource's instances, the last stands for all that follow. */
function repeatInstances(file: string, count: number): void {
  const state = JSON.parse(readFileSync(file, 'utf8')) as TerraformState;
  const [resource] = state.resources;
  const last = resource?.instances.at(-1);
  if (resource === undefined || last === undefined) throw new Error(`${file} holds no resource`);
  for (let index = resource.instances.length; index < count; index++) {
    const id = last.attributes.id.slice(0, -8) + index.toString(16).padStart(8, '0');
    resource.instances.push({ ...last, index_key: index, attributes: { ...last.attributes, id } });
  }
  writeFileSync(file, JSON.stringify(state));
}

function runTerraform(directory: string, args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync('terraform', [...args, '-no-color'], {
    cwd: directory,
    encoding: 'utf8',
    maxBuffer: 1 << 30,
    env: { ...process.env, CHECKPOINT_DISABLE: '1' },
  });
  if (status !== 0) throw new Error(`terraform ${args.join(' ')}: exit ${status}\n${stderr}`);
  return stdout;
}
