/** Certificates of the tests' own authority, made by openssl. */

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface TestCertificates {
  /** Files in PEM. */
  ca: string;
  server: { cert: string; key: string };
  client: { cert: string; key: string };
}

/** For servers at 127.0.0.1 and a client, in a directory that is there. */
export function makeCertificates(directory: string): TestCertificates {
  const file = (name: string) => join(directory, name);
  const openssl = (args: string[]) => execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const request = (name: string) => [
    'req',
    '-x509',
    ...['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
    ...['-subj', `/CN=${name}`, '-keyout', file(`${name}.key`), '-out', file(`${name}.crt`)],
  ];
  openssl(request('ca'));
  const issue = (name: string, extension: string) => {
    const authority = ['-CA', file('ca.crt'), '-CAkey', file('ca.key')];
    openssl([
      ...request(name),
      ...authority,
      ...['-addext', extension, '-addext', 'basicConstraints=CA:FALSE'],
    ]);
    return { cert: file(`${name}.crt`), key: file(`${name}.key`) };
  };
  return {
    ca: file('ca.crt'),
    server: issue('server', 'subjectAltName=IP:127.0.0.1'),
    client: issue('client', 'extendedKeyUsage=clientAuth'),
  };
}

/** What Node's https server is given to ask clients for a certificate, and to see whether they have one. */
export function serverOptions({ ca, server }: TestCertificates) {
  return {
    ca: readFileSync(ca),
    cert: readFileSync(server.cert),
    key: readFileSync(server.key),
    requestCert: true,
    rejectUnauthorized: false,
  };
}
