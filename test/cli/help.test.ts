/** What `--help` says, of every command. */

import { afterEach, expect, test, vi } from 'vitest';
import type { Services } from '../../src/cli/context.ts';
import { runCli } from '../../src/cli/program.ts';

const streams = [process.stdout, process.stderr];
const listening = streams.map((stream) => stream.listeners('error'));

afterEach(() => {
  vi.restoreAllMocks();
  // A program that ends leaves its listeners; this one goes on.
  streams.forEach((stream, index) => {
    for (const listener of stream.listeners('error'))
      if (!listening[index]?.includes(listener)) stream.off('error', listener as () => void);
  });
});

const services: Services = {
  defaultRoot: '/var/lib/cimlet',
  platform: { os: 'windows', architecture: 'amd64' },
  hostLabels: {},
  openHost: () => Promise.reject(new Error('help needs no host')),
  agentAddress: (root) => `${root}/agent.sock`,
  service: undefined,
  readStandardInput: () => Promise.reject(new Error('help reads nothing')),
};

async function helpOf(...path: readonly string[]): Promise<string> {
  let printed = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    printed += String(text);
    return true;
  });
  const env = { COLUMNS: '80' };
  const code = await runCli({ argv: [...path, '--help'], env, version: '1.2.3', services });
  vi.restoreAllMocks();
  expect(code).toBe(0);
  return printed;
}

/** Of the overview that a help ends with, if it does. */
function commandsIn(help: string): string[] {
  const [, overview = ''] = help.split('\nCommands:\n');
  const [lines = ''] = overview.split('\n\n');
  return [...lines.matchAll(/^ {2}(\w+)/gm)].map(([, name = '']) => name).filter((name) => name !== 'help');
}

const commands = commandsIn(await helpOf());

test('there are all', () => expect(commands.length).toBeGreaterThan(20));

test.each(commands.filter((name) => name !== 'version'))('%s has an example', async (command) => {
  expect(await helpOf(command)).toMatch(/Examples?:\n {2}cimlet /);
});

test.each(commands)(
  '%s, and what is below it, fits 80 columns, and says defaults in words',
  async (command) => {
    const help = await helpOf(command);
    const below = [];
    for (const name of commandsIn(help)) below.push(await helpOf(command, name));
    for (const text of [help, ...below]) {
      expect(text).toMatch(/^Usage: cimlet /);
      expect(text.split('\n').filter((line) => line.length > 80)).toEqual([]);
      expect(text).not.toMatch(/default:\s+(false|""|\{\}|\[\]|\d{5,})/);
    }
  },
);
