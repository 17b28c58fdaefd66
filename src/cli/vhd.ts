/** `cimlet vhd create|ls|cat|verify` */

import { resolve } from 'node:path';
import { Argument, type Command } from 'commander';
import { CimletError } from '../errors.ts';
import { Disk } from '../ext4/disk.ts';
import type { Ext4File } from '../ext4/reader.ts';
import { createLayerDisk } from '../hosts/layer-disk.ts';
import { verifyDisk } from '../hosts/verify-disk.ts';
import type { AddCommand, CliContext } from './context.ts';
import { type GlobalOptions, parseSizeOption } from './options.ts';
import { formatData, isDataFormat } from './output.ts';
import { dataOf, isDirectory, longLine, toBytes, toText } from './render-ext4.ts';
import { interruptible } from './signals.ts';
import { formatBytes, plural, printable } from './text.ts';

const HELP = `
Examples:
  cimlet vhd create layer.tar.gz -o layer.vhd --verity
  cimlet vhd ls -l layer.vhd usr/bin
  cimlet vhd cat layer.vhd etc/os-release
  cimlet vhd verify layer.vhd`;

export const addVhd: AddCommand = (program, context) => {
  const vhd = program
    .command('vhd')
    .description('make disk images of Linux layers, and look into those of others')
    .addHelpText('after', HELP);
  addCreate(vhd, context);
  addList(vhd, context);
  addCat(vhd, context);
  addVerify(vhd, context);
};

interface CreateOptions extends GlobalOptions {
  verity?: boolean;
  inlineData?: boolean;
  maxSize?: number;
}

function addCreate(vhd: Command, context: CliContext): void {
  const { terminal } = context;
  vhd
    .command('create')
    .description('write a layer tar as a compact ext4 file system in a fixed VHD')
    .argument('<layer>', 'the tar: plain, gzip or zstd')
    .option('-o, --output <file>', 'the VHD to write; one that is there is replaced')
    .option('--verity', 'add dm-verity and print its root hash')
    .option('--inline-data', 'keep small files in their inodes')
    .option('--max-size <size>', 'fail when the file system gets larger, default 16Gi', parseSizeOption)
    .action(async (layer: string, _options, command: Command) => {
      const options = command.optsWithGlobals<CreateOptions>();
      if (command.getOptionValueSourceWithGlobals('output') !== 'cli') {
        throw new CimletError('failed-precondition', 'vhd create: no file named', {
          hint: `name the VHD with -o, for example: cimlet vhd create ${layer} -o layer.vhd`,
        });
      }
      const file = resolve(options.output);
      const disk = await interruptible(context, (signal) =>
        createLayerDisk({
          tar: resolve(layer),
          file,
          verity: options.verity ?? false,
          inlineData: options.inlineData ?? false,
          maxSize: options.maxSize,
          signal,
        }),
      );
      for (const warning of disk.warnings)
        terminal.printError(`${terminal.paintError('yellow', 'warning:')} ${printable(warning)}`);
      const counted = `${plural(disk.inodes, 'inode')}, ${formatBytes(disk.size)}`;
      terminal.print(printable(`Wrote ${file}: ${counted}.`));
      if (disk.rootHash !== undefined) terminal.print(`Root hash: ${disk.rootHash}`);
    });
}

function addList(vhd: Command, context: CliContext): void {
  vhd
    .command('ls')
    .description('list a directory of a disk image')
    .argument('<file>', 'the image: raw, VHD or VHDX')
    .addArgument(new Argument('[path]', 'directory or file in it').default('', 'its root'))
    .option('-l, --long', 'with mode, owner, size and time')
    .option('-R, --recursive', 'with all below')
    .action(async (file: string, path: string, _options, command: Command) => {
      const options = command.optsWithGlobals<GlobalOptions & { long?: boolean; recursive?: boolean }>();
      const { long, recursive, output } = options;
      await withDisk(file, async (disk) => {
        const top = find(disk, file, path);
        const entries = listed(disk, top, path, recursive ?? false);
        if (isDataFormat(output)) {
          const data = [...entries].map(({ name, file: found }) => dataOf(disk.files, toText(name), found));
          context.terminal.print(formatData(data, output));
          return;
        }
        for (const { name, file: found } of entries) {
          if (context.terminal.closed) return;
          const shown = `${printable(toText(name))}${isDirectory(found) ? '/' : ''}`;
          await context.terminal.write(`${long ? longLine(disk.files, shown, found) : shown}\n`);
        }
      });
    });
}

function* listed(
  disk: Disk,
  top: Ext4File,
  path: string,
  recursive: boolean,
): Generator<{ name: string; file: Ext4File }> {
  if (!isDirectory(top)) yield { name: toBytes(path.slice(path.lastIndexOf('/') + 1)), file: top };
  else if (recursive) for (const { path: name, file } of disk.files.walk(top)) yield { name, file };
  else {
    const children = [...disk.files.entries(top)].sort((a, b) => (a.name < b.name ? -1 : 1));
    for (const { name, inode } of children) yield { name, file: disk.files.inode(inode) };
  }
}

function addCat(vhd: Command, context: CliContext): void {
  vhd
    .command('cat')
    .description('write the bytes of a file to standard output')
    .argument('<file>', 'the image')
    .argument('<path>', 'file in it; symlinks are followed inside the image')
    .action(async (file: string, path: string) => {
      await withDisk(file, async (disk) => {
        const found = find(disk, file, path, true);
        if ((found.mode & 0o170000) !== 0o100000)
          throw new CimletError('failed-precondition', `cat ${path} in ${file}: is no regular file`);
        for (const chunk of disk.files.chunks(found)) {
          if (context.terminal.closed) return;
          await context.terminal.write(chunk);
        }
      });
    });
}

function addVerify(vhd: Command, context: CliContext): void {
  const { terminal } = context;
  vhd
    .command('verify')
    .description('check footer, file system and dm-verity; exits with 1 when there are faults')
    .argument('<file>', 'the image')
    .option('--root-hash <hash>', "what dm-verity's root hash must be")
    .action(async (file: string, _options, command: Command) => {
      const options = command.optsWithGlobals<GlobalOptions & { rootHash?: string }>();
      const rootHash = options.rootHash?.toLowerCase().replace(/^sha256:/, '');
      const { faults, facts } = await interruptible(context, (signal) =>
        verifyDisk(resolve(file), { rootHash, signal }),
      );
      if (context.exitCode === 0 && faults.length > 0) context.exitCode = 1;
      if (isDataFormat(options.output)) {
        terminal.print(formatData({ file, ...facts, faults }, options.output));
        return;
      }
      for (const fault of faults)
        terminal.print(printable(`${fault.file}: offset 0x${fault.offset.toString(16)}: ${fault.message}`));
      if (faults.length > 0) {
        terminal.printError(terminal.paintError('red', plural(faults.length, 'fault')));
        return;
      }
      terminal.print(terminal.paint('green', `${printable(file)}: no faults`));
      terminal.print(`VHD footer: ${facts.vhdFooter ? 'yes' : 'none'}`);
      terminal.print(`Root hash: ${facts.rootHash ?? 'none, there is no dm-verity'}`);
    });
}

async function withDisk(file: string, use: (disk: Disk) => Promise<void>): Promise<void> {
  const disk = new Disk(file);
  try {
    await use(disk);
  } finally {
    disk.close();
  }
}

function find(disk: Disk, file: string, path: string, follow = false): Ext4File {
  const found = disk.files.find(toBytes(path), { follow });
  if (found === undefined) throw new CimletError('not-found', `${file} holds no ${path}`);
  return found;
}
