/** Image resources -> images: `spec.source` opened, the platform chosen for a host. */

import type { HostState } from '../hosts/host.ts';
import { openImageSource } from '../images/image-source.ts';
import { resolveImage } from '../images/resolve-image.ts';
import type { HostPlatform } from '../images/types.ts';
import type { ResolveImage } from '../reconciler/perform.ts';

/** `host` is what the images are for: this machine, or the one whose observed state is planned against. */
export function createImageResolver(host: HostPlatform): ResolveImage {
  return async (image, signal) => {
    const { source, platform, digest } = image.spec;
    const opened = await openImageSource(source, image.baseDirectory, signal);
    return resolveImage(opened, { platform, digest, host }, signal);
  };
}

/** What images are for on an observed host. Only Windows runs them, and has rules about their version. */
export function platformOf({ host }: HostState): HostPlatform {
  const platform = { os: 'windows', architecture: host.architecture };
  return host.kind === 'windows' ? { ...platform, osVersion: host.osVersion } : platform;
}
