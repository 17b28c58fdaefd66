/** `cimlet observe` */

import type { HostState } from '../hosts/host.ts';
import type { AddCommand } from './context.ts';
import { readManifests } from './manifests.ts';
import { filenameOption, type GlobalOptions, type ManifestOptions } from './options.ts';
import { formatData, isDataFormat } from './output.ts';
import { interruptible } from './signals.ts';
import { formatBytes, type Paint, plural, printable, shortenDigests } from './text.ts';

const HELP = `
Looks at the host and writes nothing. With -f, the mount points that the
manifests name are looked at as well, so that the output is all that plan
--observed needs on another machine.

Example:
  cimlet observe -f manifests/ -o json > node.json
  cimlet plan -f manifests/ --observed node.json`;

export const addObserve: AddCommand = (program, context) => {
  const { terminal, services } = context;
  program
    .command('observe')
    .description('print what is on the host: layers, mounts, leftovers')
    .addOption(filenameOption())
    .addHelpText('after', HELP)
    .action(async (_options, command) => {
      const options = command.optsWithGlobals() as GlobalOptions & ManifestOptions;
      const state = await interruptible(context, async (signal) => {
        const loaded =
          options.filename.length > 0 ? await readManifests(context, options.filename, signal) : undefined;
        const paths = loaded?.resources.flatMap((resource) =>
          resource.kind === 'Mount' ? [resource.spec.path] : [],
        );
        const host = await services.openHost(options.host, options.root);
        return host.observe({ signal, paths: paths ?? [] });
      });
      if (isDataFormat(options.output)) terminal.print(formatData(state, options.output));
      else terminal.print(renderHostState(state, terminal.paint));
    });
};

/** A few lines for a person; `-o json` has everything. */
export function renderHostState(state: HostState, paint: Paint): string[] {
  const { kind, platform, osVersion, architecture } = state.host;
  const bytes = state.layers.reduce((sum, layer) => sum + layer.bytes, 0);
  const safe = (text: string) => printable(shortenDigests(text));
  return [
    `Host:    ${safe(`${kind} on ${platform} ${osVersion}, ${architecture}`)}`,
    `Root:    ${safe(state.root)}${state.freeBytes === undefined ? '' : ` (${formatBytes(state.freeBytes)} free)`}`,
    `Layers:  ${state.layers.length} (${formatBytes(bytes)})`,
    ...state.layers.flatMap((layer) => [
      `  ${layer.format} ${safe(layer.chainId)}  ${formatBytes(layer.bytes)}, ${plural(layer.files, 'file')}`,
      ...layer.faults.map((fault) => paint('red', `    ${safe(`${fault.code}: ${fault.message}`)}`)),
    ]),
    ...(state.merges.length === 0 ? [] : [`Merged:  ${state.merges.length}`]),
    ...state.merges.flatMap((merge) => [
      `  ${merge.format} ${safe(merge.chain.at(-1) ?? '')}  ${formatBytes(merge.bytes)}, ${plural(merge.chain.length, 'layer')}`,
      ...merge.faults.map((fault) => paint('red', `    ${safe(`${fault.code}: ${fault.message}`)}`)),
    ]),
    `Mounts:  ${state.mounts.length}`,
    ...state.mounts.map((mount) => {
      const text = safe(`  ${mount.path}  ${mount.view} view of ${mount.chainId}, ${mount.state}`);
      return mount.state === 'mounted' ? text : paint('red', text);
    }),
    ...renderNeighbours(state, paint),
    ...Object.entries(state.paths).map(([path, { kind, detail }]) =>
      safe(`Path:    ${path}: ${kind}${detail === undefined ? '' : ` (${detail})`}`),
    ),
    ...state.leftovers.map((leftover) =>
      paint(
        'yellow',
        safe(`Leftover: ${leftover.path}: ${leftover.reason} (${formatBytes(leftover.bytes)})`),
      ),
    ),
  ];
}

/** What else is on the machine that layers are for: compute systems, and mounted CIMs. */
function renderNeighbours(
  { computeSystems, cimVolumes = [], cimVolumesUnknown }: HostState,
  paint: Paint,
): string[] {
  const systems = computeSystems?.running ?? [];
  return [
    ...(systems.length === 0 ? [] : [`Systems: ${systems.length}`]),
    ...systems.map(({ id, type, owner, uses: { layers, mounts, snapshots } }) => {
      const used = [
        ...(layers.length === 0 ? [] : [plural(layers.length, 'layer')]),
        ...(mounts.length === 0 ? [] : [plural(mounts.length, 'mount')]),
        ...(snapshots.length === 0 ? [] : [plural(snapshots.length, 'snapshot')]),
      ];
      const whose = owner === undefined ? '' : ` of ${owner}`;
      return printable(`  ${type} ${id}${whose}${used.length === 0 ? '' : `, uses ${used.join(' and ')}`}`);
    }),
    ...(computeSystems?.unknown === undefined
      ? []
      : [paint('yellow', printable(`Systems: unknown: ${computeSystems.unknown}`))]),
    ...(cimVolumesUnknown === undefined
      ? []
      : [paint('yellow', printable(`Volumes: unknown: ${cimVolumesUnknown}`))]),
    ...cimVolumes.map(({ path, ours }) => printable(`Volume:  ${path}: ${ours ?? 'a CIM of somebody else'}`)),
  ];
}
