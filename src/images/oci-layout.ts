/** Images in an OCI layout: a directory or a tar of one. Source: OCI image-spec v1.1, image-layout.md. */

import { CimletError } from '../errors.ts';
import { type Bundle, readDocument } from './bundle.ts';
import { algorithmOf, isDigest } from './digest.ts';
import { parseIndex, parseLayoutVersion } from './documents.ts';
import { listOffers, refOf } from './oci-image.ts';
import type { Descriptor, ImageBlobs, ImageSource, OpenedImage } from './types.ts';

/** containerd writes the whole image name here, beside the tag in the OCI annotation. */
const CONTAINERD_NAME = 'io.containerd.image.name';

/**
 * `ref` is a tag (or a digest) of the layout's index.json. Without one the layout must hold a single image, for any
 * number of platforms.
 */
export function ociLayoutSource(bundle: Bundle, ref: string | undefined): ImageSource {
  const name = `OCI layout ${bundle.path}`;
  const blobs: ImageBlobs = {
    name,
    locate: ({ digest }) =>
      bundle.find(`blobs/${algorithmOf(digest)}/${digest.slice(digest.indexOf(':') + 1)}`),
  };
  const open = async (): Promise<OpenedImage> => ({ blobs, entries: await readEntries(bundle, ref, name) });
  return {
    name,
    open,
    list: async (signal) => listOffers(blobs, (await open()).entries, signal),
  };
}

/** What its images are called, each name once; `unnamed` counts entries that have none. */
export async function listLayoutNames(bundle: Bundle): Promise<{ names: string[]; unnamed: number }> {
  const refs = (await readIndex(bundle)).map(refOf);
  const names = refs.filter((ref) => ref !== undefined);
  return { names: [...new Set(names)], unnamed: refs.length - names.length };
}

/** The entries of index.json that are one image. */
async function readEntries(bundle: Bundle, ref: string | undefined, name: string): Promise<Descriptor[]> {
  const manifests = await readIndex(bundle);
  return ref === undefined ? onlyImage(manifests, name) : imagesNamed(manifests, ref, name);
}

async function readIndex(bundle: Bundle): Promise<Descriptor[]> {
  parseLayoutVersion(await readFile(bundle, 'oci-layout'), `${bundle.path}/oci-layout`);
  return parseIndex(await readFile(bundle, 'index.json'), `${bundle.path}/index.json`).manifests;
}

async function readFile(bundle: Bundle, file: string): Promise<Buffer> {
  const range = await bundle.find(file);
  if (range === undefined) {
    throw new CimletError('not-found', `${bundle.path} is no OCI layout: it has no file ${file}`, {
      hint: 'for an archive written by `docker save`, use dockerArchive instead of ociLayout',
    });
  }
  return readDocument(range, `${bundle.path}/${file}`);
}

function imagesNamed(entries: Descriptor[], ref: string, name: string): Descriptor[] {
  const found = entries.filter(
    (entry) =>
      (isDigest(ref) && entry.digest === ref) ||
      refOf(entry) === ref ||
      entry.annotations[CONTAINERD_NAME] === ref,
  );
  if (found.length > 0) return found;
  throw new CimletError('not-found', `${name} has no image \`${ref}\``, {
    hint: `it has ${listRefs(entries)}`,
  });
}

/** Entries without a tag, or with one tag, are one image's platforms; several tags are several images. */
function onlyImage(entries: Descriptor[], name: string): Descriptor[] {
  const tags = new Set(entries.map(refOf));
  const digests = new Set(entries.map((entry) => entry.digest));
  if (tags.size <= 1 || digests.size <= 1) return entries;
  throw new CimletError('not-found', `${name} holds several images, and none is named`, {
    hint: `add one to the path, as in path:tag; it has ${listRefs(entries)}`,
  });
}

function listRefs(entries: Descriptor[]): string {
  const refs = [...new Set(entries.map((entry) => refOf(entry) ?? entry.digest))].sort();
  const shown = refs.slice(0, 20).join(', ');
  return refs.length === 0 ? 'none' : refs.length > 20 ? `${shown} and ${refs.length - 20} more` : shown;
}
