import { readdirSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { describe, expect, it } from 'vitest';
import { probeMounting } from '../../../src/native/linux/probe.ts';
import { isRoot, requireOrSkip } from '../../support/requirements.ts';

describe.runIf(process.platform === 'linux')('probeMounting', () => {
  it('tells what the kernel is and what it knows', async () => {
    const facts = await probeMounting();
    expect(facts.kernelRelease).toBe(release());
    expect(facts.erofs === 'registered').toBe(
      readFileSync('/proc/filesystems', 'utf8').includes('\terofs\n'),
    );
    expect(facts.mountApi).toMatch(/^(available|E[A-Z]+)$/);
  });

  it.runIf(requireOrSkip('root', isRoot))('sees the rights of root', async () => {
    expect(await probeMounting()).toMatchObject({
      capSysAdmin: true,
      initialUserNamespace: true,
      mountApi: 'available',
    });
  });

  it('leaves nothing open', async () => {
    await probeMounting();
    const before = readdirSync('/proc/self/fd').length;
    await probeMounting();
    expect(readdirSync('/proc/self/fd').length).toBe(before);
  });
});
