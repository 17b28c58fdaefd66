/** Bounds and turns of transfers. */

import fc from 'fast-check';
import { expect, it } from 'vitest';
import { TransferSlots } from '../../../src/images/registry/transfer-slots.ts';

const signal = new AbortController().signal;

it('never lets more transfers run than allowed, and leaves none waiting for ever', async () => {
  const request = fc.record({ host: fc.constantFrom('a', 'b', 'c'), image: fc.constantFrom('x', 'y') });
  await fc.assert(
    fc.asyncProperty(fc.array(request, { maxLength: 40 }), fc.scheduler(), async (requests, scheduler) => {
      const slots = new TransferSlots({ perHost: 2, inAll: 3 });
      const running: string[] = [];
      const all = requests.map((each, index) =>
        slots.run(each, signal, async () => {
          running.push(each.host);
          expect(running.length).toBeLessThanOrEqual(3);
          expect(running.filter((host) => host === each.host).length).toBeLessThanOrEqual(2);
          await scheduler.schedule(Promise.resolve(), `transfer ${index}`);
          running.splice(running.indexOf(each.host), 1);
        }),
      );
      await scheduler.waitFor(Promise.all(all));
      expect(running).toEqual([]);
    }),
    { numRuns: 100 },
  );
});

it('gives a small image its turn between the layers of a large one', async () => {
  const slots = new TransferSlots({ perHost: 1, inAll: 1 });
  const order: string[] = [];
  const add = (image: string) => slots.run({ host: 'h', image }, signal, async () => void order.push(image));
  await Promise.all([...Array(5).fill('large'), 'small', 'small'].map(add));
  expect(order.slice(0, 4)).toEqual(['large', 'small', 'large', 'small']);
});

it('forgets who stops waiting', async () => {
  const slots = new TransferSlots({ perHost: 1, inAll: 1 });
  const controller = new AbortController();
  let release: () => void = () => undefined;
  const first = slots.run(
    { host: 'h', image: 'x' },
    signal,
    () =>
      new Promise<void>((resolve) => {
        release = resolve;
      }),
  );
  const second = slots.run({ host: 'h', image: 'x' }, controller.signal, async () => 'ran');
  controller.abort();
  await expect(second).rejects.toMatchObject({ code: 'cancelled' });
  const third = slots.run({ host: 'h', image: 'x' }, signal, async () => 'ran');
  release();
  await first;
  expect(await third).toBe('ran');
});
