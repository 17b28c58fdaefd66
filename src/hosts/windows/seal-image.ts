import { CimletError } from '../../errors.ts';
import type { CimWriteCalls } from '../../native/windows/cim-calls.ts';

/**
 * Seals an image that is closed, and gives its root hash in hexadecimal. Throws `corrupt` when Windows doesn't read back what it
 * said it had sealed: every mount would be held to that.
 */
export async function sealImage(
  calls: Pick<CimWriteCalls, 'sealImage' | 'getVerificationInformation'>,
  container: string,
): Promise<string> {
  const hash = Buffer.from(await calls.sealImage(container)).toString('hex');
  const { sealed, rootHash } = await calls.getVerificationInformation(container);
  const found = sealed ? `root hash ${Buffer.from(rootHash).toString('hex')}` : 'no seal';
  if (found !== `root hash ${hash}`)
    throw new CimletError(
      'corrupt',
      `seal ${container}: it was sealed with root hash ${hash}, and has ${found}`,
    );
  return hash;
}
