import { expect, it } from 'vitest';
import { Limiter } from '../../src/hosts/limiter.ts';

it('runs no more than its limit at a time, in the order asked, failures included', async () => {
  const limiter = new Limiter(2);
  const started: number[] = [];
  let running = 0;
  let most = 0;
  const task = (number: number) => async () => {
    started.push(number);
    most = Math.max(most, ++running);
    await new Promise((resolve) => setImmediate(resolve));
    running--;
    if (number === 1) throw new Error('no');
    return number;
  };
  const results = await Promise.allSettled([0, 1, 2, 3, 4].map((number) => limiter.run(task(number))));
  expect(results.map(({ status }) => status === 'fulfilled')).toEqual([true, false, true, true, true]);
  expect([started, most]).toEqual([[0, 1, 2, 3, 4], 2]);
});
