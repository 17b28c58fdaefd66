/** Images whose signatures are looked for, and believed: what was believed once is kept, and not fetched again. */

import { CimletError, isErrorCode } from '../../errors.ts';
import type { Digest } from '../../hosts/host.ts';
import type { BlobStore } from '../blob-store.ts';
import { parseReference } from '../registry/reference.ts';
import type { Registries } from '../registry/registries.ts';
import type { ResolvedImage } from '../types.ts';
import type { SignatureManifest } from './evidence.ts';
import { readStoredSignatures, storeSignatures } from './stored-signatures.ts';
import type { PublicRoot } from './trusted-root.ts';
import type { VerificationSpec } from './verify-image.ts';

/** Of images, so that an agent that follows tags for months keeps no more in memory. */
const MOST_BELIEVED = 1000;

export interface RequiredSignaturesOptions {
  registries: Pick<Registries, 'findSignatures'>;
  /** Where signatures are kept with their images. */
  store: BlobStore;
  mayWrite: boolean;
  /** No registry may be asked. */
  offline: boolean;
  publicRoot: PublicRoot;
}

export interface WantedSignature {
  spec: VerificationSpec;
  /** Where relative paths of the specification start. */
  baseDirectory: string;
}

export class RequiredSignatures {
  readonly #options: RequiredSignaturesOptions;
  readonly #believed = new Map<string, SignatureManifest[]>();

  constructor(options: RequiredSignaturesOptions) {
    this.#options = options;
  }

  /**
   * The image, with what is worth knowing about its signature. Keys and policies are read each time; the registry is asked
   * when what is here isn't believed. Throws as `verifyImage` and as registries do.
   */
  async require(image: ResolvedImage, wanted: WantedSignature, signal: AbortSignal): Promise<ResolvedImage> {
    const { reference, digest, indexes = [] } = image;
    if (reference === undefined) {
      throw new CimletError('unsupported-host', 'spec.verify: signatures are looked for in registries only', {
        hint: 'take the image from a registry, or pin its spec.digest instead',
      });
    }
    const digests = [digest, ...indexes];
    const verify = (signatures: readonly SignatureManifest[]) =>
      this.#verify(reference, signatures, wanted, signal);
    const warnings =
      (await this.#verifyKept(digests, verify)) ??
      (await this.#verifyFound(reference, digests, verify, signal));
    return warnings.length === 0 ? image : { ...image, warnings: [...(image.warnings ?? []), ...warnings] };
  }

  async #verify(
    reference: string,
    signatures: readonly SignatureManifest[],
    { spec, baseDirectory }: WantedSignature,
    signal: AbortSignal,
  ): Promise<string[]> {
    const { registry, repository } = parseReference(reference);
    const { verifyImage } = await import('./verify-image.ts');
    const { warnings } = await verifyImage({
      spec,
      baseDirectory,
      image: reference,
      repository: `${registry}/${repository}`,
      signatures,
      publicRoot: () => this.#options.publicRoot.get(signal),
    });
    return warnings;
  }

  /** Undefined when nothing is here that is believed, and there may be more elsewhere. */
  async #verifyKept(digests: readonly Digest[], verify: Verify): Promise<string[] | undefined> {
    const { store, offline } = this.#options;
    const kept = this.#believed.get(digests.join()) ?? (await readStoredSignatures(store, digests));
    if (kept.length === 0) return undefined;
    try {
      const warnings = await verify(kept);
      this.#remember(digests, kept);
      return warnings;
    } catch (error) {
      if (offline || !isErrorCode(error, 'access-denied')) throw error;
      return undefined;
    }
  }

  async #verifyFound(
    reference: string,
    digests: readonly Digest[],
    verify: Verify,
    signal: AbortSignal,
  ): Promise<string[]> {
    const { registries, store, mayWrite, offline } = this.#options;
    if (offline) {
      throw new CimletError(
        'unavailable',
        `the signatures of ${reference} are not here, and its registry is not to be asked`,
        { hint: 'apply once, or plan without --offline' },
      );
    }
    const { manifests, failures } = await registries.findSignatures(reference, digests, signal);
    try {
      const warnings = await verify(manifests);
      this.#remember(digests, manifests);
      if (mayWrite) await storeSignatures(store, manifests);
      return warnings;
    } catch (error) {
      const [failure] = failures;
      if (failure === undefined || !isErrorCode(error, 'access-denied')) throw error;
      throw new CimletError(
        'unavailable',
        `${error.message}; not all hosts could be asked: ${failure.message}`,
        {
          hint: failure.hint,
          cause: failure,
        },
      );
    }
  }

  #remember(digests: readonly Digest[], signatures: SignatureManifest[]): void {
    if (this.#believed.size >= MOST_BELIEVED) this.#believed.clear();
    this.#believed.set(digests.join(), signatures);
  }
}

/** Resolves with what is worth knowing. */
type Verify = (signatures: readonly SignatureManifest[]) => Promise<string[]>;
