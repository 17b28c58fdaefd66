/** Seals are read back. (That Windows is asked, and what a refusal leaves, is in killed.test.ts.) */

import { expect, it } from 'vitest';
import { sealImage } from '../../../src/hosts/windows/seal-image.ts';

const HASH = Uint8Array.of(1, 2, 3);

/** A DLL that seals with HASH, and then says this. */
function dll(sealed: boolean, rootHash: Uint8Array) {
  return {
    sealImage: async () => HASH,
    getVerificationInformation: async () => ({ sealed, rootHash, signatureSize: 0, fixedHeaderSize: 0 }),
  };
}

it('gives the root hash of what is sealed', async () => {
  expect(await sealImage(dll(true, HASH), 'C:\\a.bcim')).toBe('010203');
});

it.each([
  ['no seal', dll(false, new Uint8Array())],
  ['root hash 030201', dll(true, Uint8Array.of(3, 2, 1))],
])('refuses an image that has %s afterwards', async (found, calls) => {
  await expect(sealImage(calls, 'C:\\a.bcim')).rejects.toMatchObject({
    code: 'corrupt',
    message: `seal C:\\a.bcim: it was sealed with root hash 010203, and has ${found}`,
  });
});
