/** Images whose signatures were found and believed in one session: their signatures are not fetched again. */

import { CimletError } from '../../errors.ts';
import type { Digest } from '../../hosts/host.ts';
import { parseReference } from '../registry/reference.ts';
import type { Registries } from '../registry/registries.ts';
import type { ResolvedImage } from '../types.ts';
import type { SignatureManifest } from './evidence.ts';
import type { VerificationSpec } from './verify-image.ts';

/** Of images, so that an agent that follows tags for months keeps no more. */
const MOST_BELIEVED = 1000;

export interface RequiredSignaturesOptions {
  registries: Pick<Registries, 'findSignatures'>;
  /** No registry may be asked. */
  offline: boolean;
  cacheDirectory: string | undefined;
}

export class RequiredSignatures {
  readonly #options: RequiredSignaturesOptions;
  readonly #believed = new Map<string, SignatureManifest[]>();

  constructor(options: RequiredSignaturesOptions) {
    this.#options = options;
  }

  /**
   * The image, with what is worth knowing about its signature. Keys and policies are read each time. Throws as
   * `verifyImage` and as registries do.
   */
  async require(
    image: ResolvedImage,
    { spec, baseDirectory }: { spec: VerificationSpec; baseDirectory: string },
    signal: AbortSignal,
  ): Promise<ResolvedImage> {
    const { reference, digest, indexes = [] } = image;
    if (reference === undefined) {
      throw new CimletError('unsupported-host', 'spec.verify: signatures are looked for in registries only', {
        hint: 'take the image from a registry, or pin its spec.digest instead',
      });
    }
    const digests = [digest, ...indexes];
    const signatures = await this.#find(reference, digests, signal);
    const { registry, repository } = parseReference(reference);
    const { verifyImage } = await import('./verify-image.ts');
    const { warnings } = await verifyImage({
      spec,
      baseDirectory,
      image: reference,
      repository: `${registry}/${repository}`,
      signatures,
      cacheDirectory: this.#options.cacheDirectory,
    });
    if (this.#believed.size >= MOST_BELIEVED) this.#believed.clear();
    this.#believed.set(digests.join(), signatures);
    return warnings.length === 0 ? image : { ...image, warnings: [...(image.warnings ?? []), ...warnings] };
  }

  async #find(
    reference: string,
    digests: readonly Digest[],
    signal: AbortSignal,
  ): Promise<SignatureManifest[]> {
    const believed = this.#believed.get(digests.join());
    if (believed !== undefined) return believed;
    if (!this.#options.offline) return this.#options.registries.findSignatures(reference, digests, signal);
    throw new CimletError(
      'unavailable',
      `the signatures of ${reference} are in its registry, which is not to be asked`,
      {
        hint: 'plan without --offline',
      },
    );
  }
}
