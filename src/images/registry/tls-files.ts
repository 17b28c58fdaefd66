/** Certificates and keys that configuration names: read as PEM, and refused with the file's name when they are none. */

import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CimletError, classify } from '../../errors.ts';

/** What the TLS of one host needs beyond the defaults, as PEM. */
export interface TlsSettings {
  skipVerify: boolean;
  ca: string[];
  clients: { cert: string; key: string }[];
}

export const NO_TLS_SETTINGS: TlsSettings = { skipVerify: false, ca: [], clients: [] };

/** As docker has it: any `*.crt` is a CA, any `*.cert` a client's certificate with its `*.key`. */
export async function readCertificateFolder(folder: string): Promise<TlsSettings> {
  const tls: TlsSettings = { skipVerify: false, ca: [], clients: [] };
  for (const name of (await readdir(folder)).sort()) {
    const file = join(folder, name);
    if (name.endsWith('.crt')) tls.ca.push(await readAuthorities(file));
    if (name.endsWith('.cert')) tls.clients.push(await readClient(file, file.replace(/cert$/, 'key')));
  }
  return tls;
}

/** Certificates of authorities, any number of them. Throws `failed-precondition` for a file without. */
export async function readAuthorities(file: string): Promise<string> {
  const pem = await readText(file);
  parseCertificate(pem, file);
  return pem;
}

/** A client's certificate and the key to it, which may be in one file. */
export async function readClient(
  certificateFile: string,
  keyFile: string,
): Promise<{ cert: string; key: string }> {
  const [cert, key] = await Promise.all([readText(certificateFile), readText(keyFile)]);
  const certificate = parseCertificate(cert, certificateFile);
  const isItsKey = attempt(() => certificate.checkPrivateKey(createPrivateKey(key)), {
    file: keyFile,
    wrong: 'is no private key in PEM, or wants a passphrase',
  });
  if (isItsKey) return { cert, key };
  throw new CimletError('failed-precondition', `${keyFile} is not the key to ${certificateFile}`);
}

function parseCertificate(pem: string, file: string): X509Certificate {
  return attempt(() => new X509Certificate(pem), { file, wrong: 'is no certificate in PEM' });
}

function attempt<T>(read: () => T, { file, wrong }: { file: string; wrong: string }): T {
  try {
    return read();
  } catch (cause) {
    throw new CimletError('failed-precondition', `${file} ${wrong}`, { cause });
  }
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw classify(error, `read ${file}`);
  }
}
