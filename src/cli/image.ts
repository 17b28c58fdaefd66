/** `cimlet image ls|inspect|copy|save|load|rm|export` */

import type { Command } from 'commander';
import { CimletError } from '../errors.ts';
import type { BlobStore } from '../images/blob-store.ts';
import { openBundle } from '../images/bundle.ts';
import { storedSource } from '../images/copy-image.ts';
import { dockerArchiveSource } from '../images/docker-archive.ts';
import { describePlace, type ImagePlace, parseImagePlace } from '../images/image-place.ts';
import { ociLayoutSource } from '../images/oci-layout.ts';
import { parseReference } from '../images/registry/reference.ts';
import type { Registries } from '../images/registry/registries.ts';
import { resolveImage } from '../images/resolve-image.ts';
import { type ImageInventory, inspectStored } from '../images/stored-images.ts';
import type { ImageSource } from '../images/types.ts';
import { acquireRootLock } from '../state/root-lock.ts';
import type { AddCommand, CliContext } from './context.ts';
import { addCopy, addLoad, addSave } from './image-copy.ts';
import { addExport } from './image-export.ts';
import { type ImageOptions, platformOption, storeOf, withRegistries } from './image-session.ts';
import type { GlobalOptions } from './options.ts';
import { formatData, isDataFormat } from './output.ts';
import { imageTable, inspection } from './render-images.ts';
import { interruptible } from './signals.ts';
import { printable } from './text.ts';

const HELP = `
The images of this root are those that were fetched, loaded or copied into it.
Places to copy from and to:
  host/repository:tag              an image of this root
  docker://host/repository:tag     a registry
  oci:directory[:tag]              an OCI layout
  oci-archive:file[:tag]           a tar of one
  docker-archive:file[:tag]        a tar of docker save

Examples:
  cimlet image ls
  cimlet image copy docker://registry.example.com/windows/nano:v1 oci:nano:v1
  cimlet image save mcr.microsoft.com/windows/nanoserver:ltsc2025 -o nano.tar
  cimlet image load -i nano.tar
  cimlet image copy oci:nano:v1 docker://registry.example.com/windows/nano:v1`;

export const addImage: AddCommand = (program, context) => {
  const image = program
    .command('image')
    .description('see, move and remove the images of this root')
    .addHelpText('after', HELP);
  addList(image, context);
  addInspect(image, context);
  addCopy(image, context);
  addSave(image, context);
  addLoad(image, context);
  addRemove(image, context);
  addExport(image, context);
};

function addList(image: Command, context: CliContext): void {
  const { terminal } = context;
  image
    .command('ls')
    .description('list the images of this root')
    .action(async (_options, command: Command) => {
      const options = command.optsWithGlobals<GlobalOptions>();
      const store = storeOf(options);
      const images = await interruptible(context, async () => {
        const known = await store.listImages();
        return Promise.all(known.map((each) => inspectStored(store, each)));
      });
      images.sort((a, b) => (a.reference < b.reference ? -1 : 1));
      if (isDataFormat(options.output))
        terminal.print(formatData({ items: images.map(imageData) }, options.output));
      else if (images.length === 0) terminal.printError(`No images in ${store.directory}.`);
      else
        terminal.print(
          imageTable(
            images,
            options.output === 'wide' ? Number.POSITIVE_INFINITY : terminal.tableWidth,
            terminal.paint,
            Date.now(),
          ),
        );
    });
}

function addInspect(image: Command, context: CliContext): void {
  const { terminal } = context;
  image
    .command('inspect')
    .description('show what an image consists of')
    .argument('<image>', 'where it is, as for copy')
    .addOption(platformOption())
    .action(async (text: string, _options, command: Command) => {
      const options = command.optsWithGlobals<ImageOptions>();
      const place = parseImagePlace(text, process.cwd());
      const found = await interruptible(context, (signal) =>
        withRegistries(context, options, 'read', async ({ registries, store }) => {
          const source = await openPlace(place, store, registries, signal);
          const request = { platform: options.platform, host: context.services.platform };
          return resolveImage(source, request, signal);
        }),
      );
      const layers = found.layers.map(({ diffId, blob: { digest, size, mediaType } }) => ({
        diffId,
        digest,
        size,
        mediaType,
      }));
      const data = {
        image: describePlace(place),
        digest: found.digest,
        platform: found.platform,
        bytes: found.bytes,
        layers,
      };
      if (isDataFormat(options.output)) terminal.print(formatData(data, options.output));
      else terminal.print(inspection(data));
      for (const warning of found.warnings ?? [])
        terminal.printError(`${terminal.paintError('yellow', 'warning:')} ${printable(warning)}`);
    });
}

function addRemove(image: Command, context: CliContext): void {
  const { terminal } = context;
  image
    .command('rm')
    .description('forget images of this root; `gc` removes what only they needed')
    .argument('<image...>', 'as `image ls` names them')
    .action(async (references: string[], _options, command: Command) => {
      const options = command.optsWithGlobals<GlobalOptions>();
      const names = references.map((text) => parseReference(text).canonical);
      const store = storeOf(options);
      const lock = acquireRootLock(options.root, 'image rm');
      try {
        const known = new Set((await store.listImages()).map(({ reference }) => reference));
        const missing = names.filter((name) => !known.has(name));
        if (missing.length > 0) {
          throw new CimletError('not-found', `image rm: ${missing.join(', ')} is not in ${store.directory}`, {
            hint: 'cimlet image ls lists them',
          });
        }
        await store.forgetImages(names);
      } finally {
        lock.release();
      }
      for (const name of names) terminal.print(printable(`Removed ${name}.`));
    });
}

async function openPlace(
  place: ImagePlace,
  store: BlobStore,
  registries: Registries,
  signal: AbortSignal,
): Promise<ImageSource> {
  switch (place.kind) {
    case 'registry':
      return registries.source({
        reference: place.reference,
        policy: 'Always',
        foreignLayers: 'registry-first',
        digest: undefined,
      });
    case 'store':
      return storedSource(store, place.reference, signal);
    case 'layout':
      return ociLayoutSource(await openBundle(place.path, signal), place.tag);
    case 'archive': {
      const bundle = await openBundle(place.path, signal);
      return place.isDocker ? dockerArchiveSource(bundle, place.tag) : ociLayoutSource(bundle, place.tag);
    }
  }
}

function imageData({ reference, descriptor, resolvedAt, platforms }: ImageInventory) {
  const resolved = resolvedAt === undefined ? undefined : new Date(resolvedAt).toISOString();
  return {
    reference,
    digest: descriptor.digest,
    mediaType: descriptor.mediaType,
    resolvedAt: resolved,
    platforms,
  };
}
