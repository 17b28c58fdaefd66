import { describe, expect, it } from 'vitest';
import { CimletError } from '../../src/errors.ts';
import type { ChainId, DiffId, Digest, UnpackRequest, VolumeGuid } from '../../src/hosts/host.ts';
import { MemoryHost } from '../../src/hosts/memory/memory-host.ts';

const context = { signal: new AbortController().signal };
const layer: UnpackRequest = {
  chainId: 'sha256:aa' as ChainId,
  diffId: 'sha256:aa' as DiffId,
  parents: [],
  format: 'ForkedCIM',
  blob: { file: '/none', offset: 0, size: 7, digest: 'sha256:bb' as Digest, mediaType: 'none' },
};

describe('failing on purpose', () => {
  it('fails the nth call before its effect', async () => {
    const host = new MemoryHost();
    const boom = new CimletError('unavailable', 'boom');
    host.failNext('unpackLayer', boom, { call: 2 });
    await host.unpackLayer(layer, context);
    await expect(host.unpackLayer({ ...layer, chainId: 'sha256:cc' as ChainId }, context)).rejects.toBe(boom);
    await expect(
      host.commitLayer({ chainId: 'sha256:cc' as ChainId, format: 'ForkedCIM' }, context),
    ).rejects.toMatchObject({
      code: 'failed-precondition',
    });
    expect(host.effects().map(({ method }) => method)).toEqual(['unpackLayer', 'unpackLayer', 'commitLayer']);
  });

  it('fails after the effect, which a repetition finds done', async () => {
    const host = new MemoryHost();
    await host.unpackLayer(layer, context);
    host.failNext('commitLayer', new Error('killed'), { stage: 'after' });
    await expect(host.commitLayer(layer, context)).rejects.toThrow('killed');
    expect((await host.observe(context)).layers).toHaveLength(1);
    expect(await host.commitLayer(layer, context)).toMatchObject({ chainId: layer.chainId, bytes: 7 });
  });
});

describe('drift', () => {
  const volumeGuid = 'v1' as VolumeGuid;
  const mount = {
    volumeGuid,
    path: '/mnt/a',
    chain: [layer.chainId],
    format: 'ForkedCIM',
    access: 'ReadOnly',
    view: 'Kernel',
  } as const;

  async function mounted(): Promise<MemoryHost> {
    const host = new MemoryHost();
    await host.unpackLayer(layer, context);
    await host.commitLayer(layer, context);
    await host.mount(mount, context);
    return host;
  }

  it('shows a dropped mount as missing and mounts it again', async () => {
    const host = await mounted();
    host.dropMount(volumeGuid);
    expect((await host.observe(context)).mounts).toMatchObject([{ state: 'missing' }]);
    await host.mount(mount, context);
    expect((await host.observe({ ...context, paths: ['/mnt/a'] })).paths).toMatchObject({
      '/mnt/a': { kind: 'own-mount' },
    });
    await host.dismount(volumeGuid, context);
    expect((await host.observe({ ...context, paths: ['/mnt/a'] })).paths).toEqual({
      '/mnt/a': { kind: 'absent' },
    });
  });

  it('never touches what covers a mount', async () => {
    const host = await mounted();
    host.coverMount(volumeGuid);
    await expect(host.mount(mount, context)).rejects.toMatchObject({ code: 'already-exists' });
    await expect(host.dismount(volumeGuid, context)).rejects.toMatchObject({ code: 'busy' });
  });

  it('builds a damaged layer again in place, under its mount', async () => {
    const host = await mounted();
    host.damageLayer(layer, { code: 'file-missing', message: 'gone' });
    expect((await host.observe(context)).layers[0]?.faults).toMatchObject([{ code: 'file-missing' }]);
    await host.unpackLayer(layer, context);
    await host.commitLayer(layer, context);
    expect((await host.observe(context)).layers[0]?.faults).toEqual([]);
    expect((await host.observe(context)).mounts).toMatchObject([{ state: 'mounted' }]);
  });
});
