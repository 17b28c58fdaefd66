/**
 * Image references, read as docker and containerd read them: `nginx` is `docker.io/library/nginx:latest`.
 * Source: github.com/distribution/reference, grammar in reference.go and rules in normalize.go.
 */

import { CimletError } from '../../errors.ts';
import type { Digest } from '../../hosts/host.ts';
import { isDigest } from '../digest.ts';

export interface ImageReference {
  /** `docker.io`, `mcr.microsoft.com`, `localhost:5000`. */
  registry: string;
  /** `library/nginx`. */
  repository: string;
  /** `latest` when neither tag nor digest is given. */
  tag: string | undefined;
  /** Decides when both are given. */
  digest: Digest | undefined;
  /** All of it, in one spelling: `docker.io/library/nginx:latest`. */
  canonical: string;
}

const DOCKER_HUB = 'docker.io';
const LONGEST_NAME = 255;

const DOMAIN_PART = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])';
const REGISTRY = new RegExp(`^(?:${DOMAIN_PART}(?:\\.${DOMAIN_PART})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?$`);
const REPOSITORY_PART = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^\w[\w.-]{0,127}$/;

/** Whether a tag may have this name. */
export function isTag(text: string): boolean {
  return TAG.test(text);
}

/** Throws `invalid-manifest`, saying which part is wrong. */
export function parseReference(text: string): ImageReference {
  const at = text.indexOf('@');
  const digest = at < 0 ? undefined : text.slice(at + 1);
  const named = at < 0 ? text : text.slice(0, at);
  const colon = named.indexOf(':', named.lastIndexOf('/') + 1);
  const name = colon < 0 ? named : named.slice(0, colon);
  const tag = colon < 0 ? undefined : named.slice(colon + 1);
  const { registry, repository } = splitRegistry(name);

  if (/^[0-9a-f]{64}$/.test(text))
    throw invalid(text, 'it is an image ID, which only the host that made it knows');
  if (!REGISTRY.test(registry)) throw invalid(text, `\`${registry}\` is no host name`);
  const wrong = repository.split('/').find((part) => !REPOSITORY_PART.test(part));
  if (wrong !== undefined) throw invalid(text, explainRepository(repository, wrong));
  if (registry.length + 1 + repository.length > LONGEST_NAME) {
    throw invalid(text, `its name is longer than ${LONGEST_NAME} characters`);
  }
  if (tag !== undefined && !isTag(tag)) throw invalid(text, `\`${tag}\` is no tag`);
  if (digest !== undefined && !isDigest(digest))
    throw invalid(text, `\`${digest}\` is no sha256 or sha512 digest`);

  const shownTag = tag ?? (digest === undefined ? 'latest' : undefined);
  return {
    registry,
    repository,
    tag: shownTag,
    digest,
    canonical: `${registry}/${repository}${shownTag === undefined ? '' : `:${shownTag}`}${digest === undefined ? '' : `@${digest}`}`,
  };
}

/** The first part is a host when it could be nothing else: it has a dot or a port, is localhost, or has capitals. */
function splitRegistry(name: string): { registry: string; repository: string } {
  const slash = name.indexOf('/');
  const first = slash < 0 ? '' : name.slice(0, slash);
  const isHost = /[.:]/.test(first) || first === 'localhost' || first.toLowerCase() !== first;
  if (!isHost) return onDockerHub(name);
  const repository = name.slice(slash + 1);
  if (first === DOCKER_HUB || first === `index.${DOCKER_HUB}`) return onDockerHub(repository);
  return { registry: first, repository };
}

/** Official images have no user's name before theirs. */
function onDockerHub(repository: string): { registry: string; repository: string } {
  return {
    registry: DOCKER_HUB,
    repository: repository.includes('/') || repository === '' ? repository : `library/${repository}`,
  };
}

function explainRepository(repository: string, wrong: string): string {
  if (repository === '') return 'it names no repository';
  if (wrong === '') return 'its repository has an empty part';
  return /[A-Z]/.test(wrong)
    ? `\`${wrong}\` has capital letters, which a repository must not have`
    : `\`${wrong}\` can't be part of a repository's name`;
}

function invalid(text: string, why: string): CimletError {
  return new CimletError('invalid-manifest', `${JSON.stringify(text)} is no image reference: ${why}`, {
    hint: 'write it as host/repository:tag or host/repository@sha256:..., e.g. mcr.microsoft.com/windows/nanoserver:ltsc2025',
  });
}
