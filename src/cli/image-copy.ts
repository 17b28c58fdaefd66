/** `cimlet image copy|save|load` */

import { resolve } from 'node:path';
import type { Command } from 'commander';
import { CimletError } from '../errors.ts';
import type { EffectContext } from '../hosts/host.ts';
import { openBundle } from '../images/bundle.ts';
import { contentBytes } from '../images/content.ts';
import { copyImage, countExported, readImage } from '../images/copy-image.ts';
import { listArchiveNames } from '../images/docker-archive.ts';
import { writeImageArchive } from '../images/image-archive.ts';
import { describePlace, type ImagePlace, parseImagePlace } from '../images/image-place.ts';
import { splitReference } from '../images/image-source.ts';
import { listLayoutNames } from '../images/oci-layout.ts';
import { parseReference } from '../images/registry/reference.ts';
import type { CliContext } from './context.ts';
import { type ImageOptions, platformOption, working } from './image-session.ts';
import { formatBytes, plural, printable, shortenDigests } from './text.ts';

export function addCopy(image: Command, context: CliContext): void {
  image
    .command('copy')
    .description('copy an image between registries, layouts, archives and this root')
    .argument('<from>', 'where it is')
    .argument('<to>', 'where it is to be')
    .addOption(platformOption())
    .option('--all', 'all platforms, and whatever else the image names')
    .action(async (from: string, to: string, _options, command: Command) => {
      const options = command.optsWithGlobals<ImageOptions>();
      const request = {
        from: parseImagePlace(from, process.cwd()),
        to: parseImagePlace(to, process.cwd()),
        wish: options.platform ?? {},
        all: options.all ?? false,
      };
      const writesStore = request.from.kind === 'registry' || request.to.kind === 'store';
      const copied = await working(context, options, writesStore ? 'write' : 'read', (services, effect) =>
        copyImage(request, services, effect),
      );
      const size = `${shortenDigests(copied.top.digest)}, ${formatBytes(copied.bytes)}`;
      context.terminal.print(
        printable(`Copied ${copied.reference} to ${describePlace(request.to)}: ${size}.`),
      );
    });
}

export function addSave(image: Command, context: CliContext): void {
  image
    .command('save')
    .description('write images of this root to a tar that docker, podman and cimlet load')
    .argument('<image...>', 'as `image ls` names them')
    .option('-o, --output <file>', 'the tar to write; one that is there is replaced')
    .addOption(platformOption())
    .option('--all', 'all platforms')
    .action(async (references: string[], _options, command: Command) => {
      const options = command.optsWithGlobals<ImageOptions>();
      if (command.getOptionValueSourceWithGlobals('output') !== 'cli') {
        throw new CimletError('failed-precondition', 'image save: no file named', {
          hint: `name the tar with -o, for example: cimlet image save ${references[0]} -o image.tar`,
        });
      }
      const file = resolve(options.output);
      const choice = { wish: options.platform ?? {}, all: options.all ?? false };
      await working(context, options, 'read', async (services, effect) => {
        const images = [];
        for (const text of references) {
          const { canonical: reference } = parseReference(text);
          const { content } = await readImage({ kind: 'store', reference }, choice, services, effect);
          images.push({ reference, content });
        }
        const total = images.reduce((sum, { content }) => sum + contentBytes(content), 0);
        await writeImageArchive(file, images, effect.signal, countExported(total, effect));
      });
      context.terminal.print(printable(`Wrote ${file}: ${plural(references.length, 'image')}.`));
    });
}

export function addLoad(image: Command, context: CliContext): void {
  image
    .command('load')
    .description('take images from an OCI layout or a docker archive into this root')
    .requiredOption(
      '-i, --input <path>',
      'a layout, or a tar of one, or of docker save; with :tag for one of several images',
    )
    .option('--name <reference>', 'what to call the one image; default: as each is called there')
    .addOption(platformOption())
    .option('--all', 'all platforms')
    .action(async (_options, command: Command) => {
      const options = command.optsWithGlobals<ImageOptions & { input: string; name?: string }>();
      const choice = { wish: options.platform ?? {}, all: options.all ?? false };
      const loaded = await working(context, options, 'write', async (services, effect) => {
        const copied = [];
        for (const { from, name } of await imagesToLoad(options, effect)) {
          const to: ImagePlace = { kind: 'store', reference: parseReference(name).canonical };
          copied.push(await copyImage({ from, to, ...choice }, services, effect));
        }
        return copied;
      });
      for (const { reference, top, bytes } of loaded)
        context.terminal.print(
          printable(`Loaded ${reference}: ${shortenDigests(top.digest)}, ${formatBytes(bytes)}.`),
        );
    });
}

interface ImageToLoad {
  from: Extract<ImagePlace, { kind: 'layout' | 'archive' }>;
  name: string;
}

/** The one that is named, or all that have names there. */
async function imagesToLoad(
  { input, name }: { input: string; name?: string },
  { signal, warn }: EffectContext,
): Promise<ImageToLoad[]> {
  const { path, ref: tag } = await splitReference(resolve(input));
  const bundle = await openBundle(path, signal);
  // A layout where it has that file, else an archive of docker's.
  const isLayout = (await bundle.find('oci-layout')) !== undefined;
  const place = (named: string | undefined): ImageToLoad['from'] =>
    isLayout ? { kind: 'layout', path, tag: named } : { kind: 'archive', path, tag: named, isDocker: true };
  if (name !== undefined) return [{ from: place(tag), name }];
  if (tag !== undefined) return [{ from: place(tag), name: tag }];
  const { names, unnamed } = await (isLayout ? listLayoutNames(bundle) : listArchiveNames(bundle));
  if (names.length === 0) throw nameless(input);
  if (unnamed > 0) warn?.(`${plural(unnamed, 'image')} in ${input} without a name: not loaded`);
  return names.map((each) => ({ from: place(each), name: each }));
}

function nameless(input: string): CimletError {
  return new CimletError('invalid-manifest', `image load: the image in ${input} has no name`, {
    hint: 'give it one with --name, for example --name example.com/app:v1',
  });
}
