/** Manifests in a git repository: committed, pushed, and told of by a webhook, as a forge does. */

import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { agentSocket } from '../src/server/address.ts';

const SECRET = 'sesame';

export class PushedManifests {
  readonly #work: string;
  readonly #directory: string;

  /** `work` holds the manifests, and becomes a clone; the agent's configuration is in `directory`, its root `root` there. */
  constructor(directory: string, work: string) {
    this.#directory = directory;
    this.#work = work;
    const server = this.#server;
    this.#git('init', '--quiet', '--bare', '--initial-branch=main', server);
    this.#git('init', '--quiet', '--initial-branch=main');
    this.#git('remote', 'add', 'origin', server);
    writeFileSync(join(directory, 'secret'), SECRET);
    this.commit();
    this.#git('push', '--quiet', 'origin', 'main');
  }

  get #server(): string {
    return join(this.#directory, 'server.git');
  }

  /** For cimlet.yaml. */
  get source(): string {
    return `{name: fleet, interval: 1h, git: {url: "${this.#server}", ref: {branch: main}, webhook: {provider: GitLab, secretFile: secret}}}`;
  }

  commit(): void {
    this.#git('add', '--all');
    this.#git('commit', '--quiet', '--message', 'change');
  }

  /** Returns once the agent was told. */
  async push(): Promise<void> {
    this.#git('push', '--quiet', 'origin', 'main');
    await tellPush(agentSocket(join(this.#directory, 'root')));
  }

  #git(...args: string[]): void {
    execFileSync(
      'git',
      ['-c', 'user.name=Ann', '-c', 'user.email=ann@example.com', '-c', 'gc.auto=0', ...args],
      {
        cwd: this.#work,
        stdio: ['ignore', 'ignore', 'inherit'],
      },
    );
  }
}

function tellPush(socketPath: string): Promise<void> {
  const body = JSON.stringify({ ref: 'refs/heads/main' });
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json', 'x-gitlab-token': SECRET };
    const sent = request({ socketPath, path: '/hooks/fleet', method: 'POST', headers }, (response) => {
      response.resume();
      if (response.statusCode === 202) response.on('end', resolve);
      else reject(new Error(`the webhook was answered with ${response.statusCode}`));
    });
    sent.on('error', reject);
    sent.end(body);
  });
}
