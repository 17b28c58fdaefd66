/** Where images are copied from and to, as skopeo and podman write it. */

import { isAbsolute, resolve } from 'node:path';
import { CimletError } from '../errors.ts';
import { parseReference } from './registry/reference.ts';

export type ImagePlace =
  /** `docker://host/repository:tag` */
  | { kind: 'registry'; reference: string }
  /** `host/repository:tag`: among the images of this root. */
  | { kind: 'store'; reference: string }
  /** `oci:directory[:tag]` */
  | { kind: 'layout'; path: string; tag?: string | undefined }
  /** `oci-archive:file[:tag]`, `docker-archive:file[:tag]` */
  | { kind: 'archive'; path: string; tag?: string | undefined; isDocker: boolean };

const SCHEMES = 'docker://, oci:, oci-archive: or docker-archive:';

/** A relative path starts in `directory`. Throws `invalid-manifest` for what names no place. */
export function parseImagePlace(text: string, directory: string): ImagePlace {
  const [, scheme = '', rest = ''] = /^(docker:\/\/|oci:|oci-archive:|docker-archive:)(.*)$/.exec(text) ?? [];
  switch (scheme) {
    case 'docker://':
      return { kind: 'registry', reference: parseReference(rest).canonical };
    case 'oci:':
      return { kind: 'layout', ...splitTag(rest, text, directory) };
    case 'oci-archive:':
    case 'docker-archive:':
      return { kind: 'archive', ...splitTag(rest, text, directory), isDocker: scheme === 'docker-archive:' };
  }
  if (isAbsolute(text) || text.startsWith('.')) {
    throw new CimletError('invalid-manifest', `${JSON.stringify(text)} doesn't say what is there`, {
      hint: `begin it with ${SCHEMES}, for example oci:${text}`,
    });
  }
  return { kind: 'store', reference: parseReference(text).canonical };
}

/** The tag begins at the first colon after the path's last separator; drive letters have none before theirs. */
function splitTag(rest: string, text: string, directory: string): { path: string; tag?: string | undefined } {
  const drive = /^[A-Za-z]:[\\/]/.test(rest) ? 2 : 0;
  const colon = rest.indexOf(':', drive);
  const path = colon < 0 ? rest : rest.slice(0, colon);
  const tag = colon < 0 ? undefined : rest.slice(colon + 1);
  if (path === '' || tag === '') {
    throw new CimletError(
      'invalid-manifest',
      `${JSON.stringify(text)} names no ${path === '' ? 'path' : 'tag'}`,
      {
        hint: 'write it as oci:directory:tag',
      },
    );
  }
  return { path: resolve(directory, path), tag };
}

/** As messages name it. */
export function describePlace(place: ImagePlace): string {
  if (place.kind === 'registry') return `docker://${place.reference}`;
  if (place.kind === 'store') return place.reference;
  const scheme = place.kind === 'layout' ? 'oci' : place.isDocker ? 'docker-archive' : 'oci-archive';
  return `${scheme}:${place.path}${place.tag === undefined ? '' : `:${place.tag}`}`;
}
