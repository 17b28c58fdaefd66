/** What Node, OpenSSL and undici call failed connections -> the classes of cimlet's errors. */

import { getSystemErrorMessage } from 'node:util';
import { CimletError } from '../../errors.ts';

/** Certificates that can't be trusted: no second try changes that. Source: OpenSSL's X509_V_ERR names. */
const UNTRUSTED = /CERT|SELF_SIGNED|UNABLE_TO_(GET|VERIFY|DECRYPT)|HOSTNAME_MISMATCH|INVALID_CA|PATH_LENGTH/;
const NOT_TLS = ['ERR_SSL_WRONG_VERSION_NUMBER', 'ERR_SSL_PACKET_LENGTH_TOO_LONG', 'EPROTO'];

const HINTS: Record<string, string> = {
  ENOTFOUND: 'check the name of the registry; behind a proxy, set HTTPS_PROXY',
  EAI_AGAIN: 'name servers cannot be reached',
  ECONNREFUSED: 'nothing listens there; check host and port',
};

/**
 * `unavailable` for what may go better next time, `access-denied` for TLS that isn't trusted, `cancelled`. Anything
 * that isn't an error of a connection passes through.
 */
export function explainNetworkError(error: unknown, operation: string, signal: AbortSignal): unknown {
  if (error instanceof CimletError || !(error instanceof Error)) return error;
  if (signal.aborted) return new CimletError('cancelled', `${operation}: cancelled`, { cause: error });
  const { code = error.name === 'HTTPParserError' ? 'HPE' : undefined, reason } = innermost(error);
  if (code === undefined) return error;
  if (UNTRUSTED.test(code)) {
    return new CimletError(
      'access-denied',
      `${operation}: its certificate is not trusted: ${reason} (${code})`,
      {
        hint: "put the CA that signed it into the registry's hosts.toml as ca (docs/registries.md)",
        cause: error,
      },
    );
  }
  if (NOT_TLS.includes(code)) {
    return new CimletError('access-denied', `${operation}: what listens there speaks no TLS (${code})`, {
      hint: 'for a registry without TLS, write server = "http://..." into its hosts.toml (docs/registries.md)',
      cause: error,
    });
  }
  return new CimletError('unavailable', `${operation}: ${reason} (${code})`, {
    hint: HINTS[code],
    cause: error,
  });
}

/** The error underneath that says most: several addresses are tried for one name. */
function innermost(error: Error): { code: string | undefined; reason: string } {
  const errors: Error[] = [error];
  for (const each of errors) {
    if (each instanceof AggregateError) errors.push(...each.errors.filter((inner) => inner instanceof Error));
    else if (each.cause instanceof Error && errors.length < 10) errors.push(each.cause);
  }
  const found = errors.findLast((each) => (each as NodeJS.ErrnoException).code !== undefined) ?? error;
  const { code, errno, syscall } = found as NodeJS.ErrnoException;
  const reason = firstLine(found.message || error.message);
  if (typeof code !== 'string') return { code: undefined, reason };
  if (errno === undefined || !reason.startsWith(`${syscall} ${code}`)) return { code, reason };
  // "connect ECONNREFUSED 127.0.0.1:5000", which says no more than the code.
  return { code, reason: `${reason.replace(` ${code}`, '')}: ${getSystemErrorMessage(errno)}` };
}

function firstLine(text: string): string {
  const [line = ''] = text.split('\n');
  return line.replace(/^[0-9A-F]+:error:[^:]*:/, '').replaceAll(/^:+|:+$/g, '');
}
