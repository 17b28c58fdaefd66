import { describe, expect, it } from 'vitest';
import { errnoName, systemError } from '../../../src/native/linux/errno.ts';

describe.runIf(process.platform === 'linux')('systemError', () => {
  it.each([
    [1, 'EPERM', 'access-denied'],
    [2, 'ENOENT', 'not-found'],
    [13, 'EACCES', 'access-denied'],
    [15, 'ENOTBLK', 'unsupported-host'],
    [16, 'EBUSY', 'busy'],
    [19, 'ENODEV', 'unsupported-host'],
    [22, 'EINVAL', 'native'],
    [28, 'ENOSPC', 'no-space'],
    [38, 'ENOSYS', 'unsupported-host'],
    [95, 'ENOTSUP', 'unsupported-host'],
  ])('%i is %s, class %s', (errno, name, code) => {
    expect(errnoName(errno)).toBe(name);
    const error = systemError('mount x at y', errno);
    expect(error).toMatchObject({ code, cause: { code: name, errno: -errno } });
    expect(error.message).toMatch(new RegExp(`^mount x at y: .* \\(${name}\\)$`));
  });

  it("adds the kernel's own words and what to do", () => {
    const error = systemError('mount x', 22, { detail: 'erofs: no', hint: 'see dmesg' });
    expect(error.message).toBe('mount x: invalid argument; the kernel says: erofs: no (EINVAL)');
    expect(error.hint).toBe('see dmesg');
  });
});
