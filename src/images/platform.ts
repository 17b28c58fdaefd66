/**
 * Which of the images offered suits a host. Source for the Windows rules: Microsoft's "Windows container version
 * compatibility" matrix; the order of preference is our own (containerd compares versions as text: 999 > 2113).
 */

import type { HostPlatform, Platform, PlatformWish } from './types.ts';

/** Server 2022: from this build on, a host runs images of older builds, down to this one. */
const FIRST_COMPATIBLE_BUILD = 20348;

/** Of a host that isn't this one, and of none: all that still run containers have it. */
const DEFAULT_WINDOWS_FEATURES = ['win32k'];

export interface Choice<T> {
  offer: T;
  /** Others that suit equally well; more than none means the choice isn't one. */
  rivals: T[];
  warning?: string | undefined;
}

/**
 * The best of `offers`, or undefined when none suits. What the wish states must be so (`osVersion` by the components
 * it has); what it leaves open the host decides: its architecture, its own os before others, and for Windows the build
 * rules. Then: the host's build before lower ones, an image without `os.version` last; among revisions the highest,
 * on the host's own build the highest that isn't above the host's.
 */
export function choosePlatform<T extends { platform: Platform }>(
  offers: readonly T[],
  wish: PlatformWish,
  host: HostPlatform,
): Choice<T> | undefined {
  const suitable = offers
    .filter((offer) => matchesPlatform(offer.platform, wish, host))
    .map((offer) => ({ offer, rank: rank(offer.platform, wish, host) }))
    .sort((a, b) => compareRanks(b.rank, a.rank));
  const [best, ...others] = suitable;
  if (best === undefined) return undefined;
  const rivals = others.filter(({ rank }) => compareRanks(rank, best.rank) === 0).map(({ offer }) => offer);
  return { offer: best.offer, rivals, warning: warningAbout(best.offer.platform, host) };
}

/** Whether an image of `platform` meets the wish and can be used on the host. */
export function matchesPlatform(platform: Platform, wish: PlatformWish, host: HostPlatform): boolean {
  if (wish.os !== undefined && platform.os !== wish.os) return false;
  const architecture = wish.architecture ?? host.architecture;
  if (architectureName(platform.architecture) !== architectureName(architecture)) return false;
  if (wish.variant !== undefined && variantOf(platform) !== wish.variant) return false;
  return (
    platform.os !== 'windows' || (featuresSuit(platform, wish, host) && versionSuits(platform, wish, host))
  );
}

/** `windows/amd64 10.0.20348.2113`, as messages show a platform. */
export function describePlatform(platform: PlatformWish): string {
  const { os = 'any os', architecture = 'any architecture', variant, osVersion, osFeatures = [] } = platform;
  const name = [os, architecture, variant].filter((part) => part !== undefined).join('/');
  return [name, osVersion, ...osFeatures].filter((part) => part !== undefined).join(' ');
}

/** Names of Node and of the kernel for what OCI calls by Go's names. */
export function architectureName(name: string): string {
  const lower = name.toLowerCase();
  if (lower === 'x64' || lower === 'x86_64' || lower === 'x86-64') return 'amd64';
  if (lower === 'aarch64') return 'arm64';
  if (lower === 'ia32' || lower === 'i386' || lower === 'i686') return '386';
  return lower;
}

/** arm64 is v8 unless it says otherwise. */
function variantOf(platform: Platform): string | undefined {
  return platform.variant ?? (architectureName(platform.architecture) === 'arm64' ? 'v8' : undefined);
}

function featuresSuit(platform: Platform, wish: PlatformWish, host: HostPlatform): boolean {
  const allowed = wish.osFeatures ?? host.osFeatures ?? DEFAULT_WINDOWS_FEATURES;
  return (platform.osFeatures ?? []).every((feature) => allowed.includes(feature));
}

function versionSuits(platform: Platform, wish: PlatformWish, host: HostPlatform): boolean {
  if (platform.osVersion === undefined) return true;
  const image = parseVersion(platform.osVersion);
  if (wish.osVersion !== undefined) {
    const wished = wish.osVersion.split('.').map(Number);
    return image !== undefined && wished.every((component, index) => image[index] === component);
  }
  if (host.os !== 'windows' || host.osVersion === undefined) return true;
  const own = parseVersion(host.osVersion);
  if (own === undefined || image === undefined) return false;
  const [major, minor, build] = image;
  const [hostMajor, hostMinor, hostBuild] = own;
  if (major !== hostMajor || minor !== hostMinor) return false;
  if (hostBuild < FIRST_COMPATIBLE_BUILD) return build === hostBuild;
  return build >= FIRST_COMPATIBLE_BUILD && build <= hostBuild;
}

type Version = [major: number, minor: number, build: number, revision: number];

/** Three or four numbers; a missing revision is 0. */
function parseVersion(text: string): Version | undefined {
  const match = /^(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?$/.exec(text);
  if (match === null) return undefined;
  const [, major, minor, build, revision = '0'] = match;
  return [Number(major), Number(minor), Number(build), Number(revision)];
}

/** Compared from left to right; higher is better. */
function rank(platform: Platform, wish: PlatformWish, host: HostPlatform): number[] {
  const [major, minor, build, revision] = parseVersion(platform.osVersion ?? '') ?? [-1, -1, -1, -1];
  return [
    wish.os === undefined && platform.os === host.os ? 1 : 0,
    major,
    minor,
    build,
    ...rankRevision(revision, isAboveHost(platform, host)),
    platform.variant === undefined || variantOf(platform) === 'v8' ? 1 : 0,
  ];
}

/** Above the host's revision the lowest is the least risk. */
function rankRevision(revision: number, aboveHost: boolean): number[] {
  return aboveHost ? [0, -revision] : [1, revision];
}

/** Same build as the host's, but a later revision; of a host whose revision isn't known that can't be said. */
function isAboveHost(platform: Platform, host: HostPlatform): boolean {
  if (platform.os !== 'windows' || host.os !== 'windows' || !hasRevision(host.osVersion)) return false;
  const own = parseVersion(host.osVersion ?? '');
  const image = parseVersion(platform.osVersion ?? '');
  if (own === undefined || image === undefined) return false;
  return own.slice(0, 3).every((component, index) => component === image[index]) && image[3] > own[3];
}

function hasRevision(version = ''): boolean {
  return version.split('.').length === 4;
}

function warningAbout(platform: Platform, host: HostPlatform): string | undefined {
  if (!isAboveHost(platform, host)) return undefined;
  return `the image's Windows ${platform.osVersion} is a later revision than this host's ${host.osVersion}; such images have crashed hosts, update the host first`;
}

function compareRanks(a: number[], b: number[]): number {
  for (const [index, value] of a.entries()) {
    const difference = value - (b[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
