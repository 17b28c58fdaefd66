import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { windowsFeatures } from '../../src/hosts/windows/os-features.ts';
import { choosePlatform, describePlatform } from '../../src/images/platform.ts';
import type { HostPlatform, Platform, PlatformWish } from '../../src/images/types.ts';
import { makeTemporaryDirectory } from '../support/stored-blob.ts';

function windowsHost(osVersion: string | undefined, extra: Partial<HostPlatform> = {}): HostPlatform {
  return { os: 'windows', architecture: 'amd64', osVersion, ...extra };
}

function windows(osVersion: string | undefined, extra: Partial<Platform> = {}): { platform: Platform } {
  return { platform: { os: 'windows', architecture: 'amd64', osVersion, ...extra } };
}

const linux = { platform: { os: 'linux', architecture: 'amd64' } };

function chosen(
  offers: { platform: Platform }[],
  host: HostPlatform,
  wish: PlatformWish = {},
): string | undefined {
  const choice = choosePlatform(offers, wish, host);
  return choice === undefined ? undefined : describePlatform(choice.offer.platform);
}

const SERVERS = ['14393.7070', '17763.6414', '20348.2700', '25398.1128', '26100.1742', '26200.6584'];
const everyServer = SERVERS.map((version) => windows(`10.0.${version}`));

describe('the Windows versions a host runs', () => {
  it.each([
    ['10.0.14393.9000', '10.0.14393.7070'],
    ['10.0.17763.7000', '10.0.17763.6414'],
    ['10.0.18363.1', undefined],
    ['10.0.20348.3000', '10.0.20348.2700'],
    ['10.0.22631.4000', '10.0.20348.2700'],
    ['10.0.25398.2000', '10.0.25398.1128'],
    ['10.0.26100.2000', '10.0.26100.1742'],
    ['10.0.26200.7000', '10.0.26200.6584'],
    ['10.0.26300.1', '10.0.26200.6584'],
    ['10.1.26100.1', undefined],
    ['6.3.9600', undefined],
    ['unknown', undefined],
  ])('%s gets %s of all servers', (host, expected) => {
    expect(chosen(everyServer, windowsHost(host))).toBe(expected && `windows/amd64 ${expected}`);
  });

  it.each([
    ['10.0.20348.1', '10.0.26100.1'],
    ['10.0.20348.1', '10.0.17763.1'],
    ['10.0.17763.1', '10.0.14393.1'],
    ['10.0.26100.1', '10.0.19045.1'],
    ['10.0.26100.1', 'ltsc2025'],
  ])('%s does not run %s', (host, image) => {
    expect(chosen([windows(image)], windowsHost(host))).toBeUndefined();
  });

  it('takes the nearest lower build when its own is not offered', () => {
    const offers = ['10.0.20348.1', '10.0.25398.1', '10.0.26100.1'].map((version) => windows(version));
    expect(chosen(offers, windowsHost('10.0.26000.1'))).toBe('windows/amd64 10.0.25398.1');
  });

  it('takes an image without a version, but only as the last choice', () => {
    expect(chosen([windows(undefined)], windowsHost('10.0.17763.1'))).toBe('windows/amd64');
    expect(chosen([windows(undefined), windows('10.0.20348.1')], windowsHost('10.0.26100.1'))).toBe(
      'windows/amd64 10.0.20348.1',
    );
  });

  it('does not care on a host that runs none of them: the highest', () => {
    expect(chosen(everyServer, { os: 'linux', architecture: 'amd64' })).toBe('windows/amd64 10.0.26200.6584');
    expect(chosen(everyServer, windowsHost(undefined))).toBe('windows/amd64 10.0.26200.6584');
  });
});

describe('revisions', () => {
  const offers = ['10.0.20348.999', '10.0.20348.2113', '10.0.20348.2700'].map((version) => windows(version));

  it('are compared as numbers, and the highest not above the host wins', () => {
    const choice = choosePlatform(offers, {}, windowsHost('10.0.20348.2500'));
    expect(choice?.offer.platform.osVersion).toBe('10.0.20348.2113');
    expect(choice?.warning).toBeUndefined();
  });

  it('above the host: the lowest, with a warning', () => {
    const choice = choosePlatform(offers, {}, windowsHost('10.0.20348.500'));
    expect(choice?.offer.platform.osVersion).toBe('10.0.20348.999');
    expect(choice?.warning).toContain('10.0.20348.999 is a later revision than this host');
  });

  it("of a lower build have nothing to do with the host's", () => {
    const choice = choosePlatform(offers, {}, windowsHost('10.0.26100.500'));
    expect(choice?.offer.platform.osVersion).toBe('10.0.20348.2700');
    expect(choice?.warning).toBeUndefined();
  });
});

describe('a wish', () => {
  it.each([
    [{ osVersion: '10.0.17763' }, '10.0.17763.6414'],
    [{ osVersion: '10.0.20348.2700' }, '10.0.20348.2700'],
    [{ osVersion: '10.0.20348.1' }, undefined],
    [{ osVersion: '10.0.2034' }, undefined],
  ])('for %o is met whatever the host runs', (wish, expected) => {
    expect(chosen(everyServer, windowsHost('10.0.26100.1742'), wish)).toBe(
      expected && `windows/amd64 ${expected}`,
    );
  });

  it('for an os or architecture excludes the others', () => {
    const offers = [linux, windows('10.0.26100.1'), windows('10.0.26100.1', { architecture: 'arm64' })];
    const host = windowsHost('10.0.26100.1');
    expect(chosen(offers, host, { os: 'linux' })).toBe('linux/amd64');
    expect(chosen(offers, host, { architecture: 'arm64' })).toBe('windows/arm64 10.0.26100.1');
    expect(chosen(offers, host, { architecture: 's390x' })).toBeUndefined();
  });

  it("absent, the host's own os comes before others", () => {
    const offers = [linux, windows('10.0.26100.1')];
    expect(chosen(offers, { os: 'linux', architecture: 'amd64' })).toBe('linux/amd64');
    expect(chosen(offers, windowsHost('10.0.26100.1'))).toBe('windows/amd64 10.0.26100.1');
    expect(chosen(offers, windowsHost('10.0.17763.1'))).toBe('linux/amd64');
  });

  it('for a variant knows that arm64 is v8', () => {
    const arm = { platform: { os: 'linux', architecture: 'arm64' } };
    const host = { os: 'linux', architecture: 'aarch64' };
    expect(chosen([arm], host, { variant: 'v8' })).toBe('linux/arm64');
    expect(chosen([arm], host, { variant: 'v9' })).toBeUndefined();
  });
});

it('a host whose revision is not known is not said to be behind an image', () => {
  const offers = ['10.0.26100.1', '10.0.26100.4000'].map((version) => windows(version));
  const choice = choosePlatform(offers, {}, windowsHost('10.0.26100'));
  expect(choice?.offer.platform.osVersion).toBe('10.0.26100.4000');
  expect(choice?.warning).toBeUndefined();
});

describe('win32k', () => {
  it('is told by its driver', () => {
    const folder = makeTemporaryDirectory();
    expect(windowsFeatures(folder)).toEqual([]);
    mkdirSync(join(folder, 'System32'));
    writeFileSync(join(folder, 'System32', 'win32k.sys'), '');
    expect(windowsFeatures(folder)).toEqual(['win32k']);
  });

  const withWin32k = windows('10.0.26100.1', { osFeatures: ['win32k'] });
  const withOther = windows('10.0.26100.1', { osFeatures: ['win32k', 'hololens'] });

  it.each([
    ['a full Windows', undefined, 'windows/amd64 10.0.26100.1 win32k'],
    ['one that says it has it', ['win32k'], 'windows/amd64 10.0.26100.1 win32k'],
    ['Nano Server', [], undefined],
  ])('on %s', (_, osFeatures, expected) => {
    expect(chosen([withOther, withWin32k], windowsHost('10.0.26100.1', { osFeatures }))).toBe(expected);
  });

  it('can be wished away', () => {
    const offers = [withWin32k, windows('10.0.20348.1')];
    expect(chosen(offers, windowsHost('10.0.26100.1'), { osFeatures: [] })).toBe(
      'windows/amd64 10.0.20348.1',
    );
  });
});

it('names what suits equally well', () => {
  const choice = choosePlatform(
    [linux, { platform: { ...linux.platform } }],
    {},
    { os: 'linux', architecture: 'x64' },
  );
  expect(choice?.rivals).toHaveLength(1);
});
