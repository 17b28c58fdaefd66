/** Answers of registries that are read whole: documents within a limit, and errors told in the registry's words. */

import { CimletError, type ErrorCode } from '../../errors.ts';
import { abandon, type HttpResponse } from './http.ts';
import { watchRate } from './minimum-rate.ts';
import { explainNetworkError } from './network-errors.ts';
import { parseRetryAfter, TransientError } from './retry.ts';

/** A response, with what in it would be a secret if the server repeated it. */
export interface Answer extends HttpResponse {
  secrets: readonly string[];
}

const ERROR_BODY_LIMIT = 64 << 10;
const LONGEST_QUOTE = 200;

const SIGN_IN_HINT =
  'check registry.credentials or docker login, and that the account may pull this repository';

/** All of a body. Throws `corrupt` when it is longer than `limit`, `unavailable` when it breaks off or hardly comes. */
export async function readAnswer(
  { body, headers, minimumRate }: HttpResponse,
  operation: string,
  limit: number,
  signal: AbortSignal,
): Promise<Buffer> {
  const declared = Number(headers['content-length'] ?? 0);
  if (declared > limit) {
    abandon(body);
    throw tooLong(operation, limit);
  }
  const chunks: Buffer[] = [];
  let size = 0;
  const watch = watchRate(operation, minimumRate, signal);
  watch.signal.addEventListener('abort', () => body.destroy(watch.signal.reason));
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      size += chunk.length;
      watch.count(chunk.length);
      if (size > limit) throw tooLong(operation, limit);
      chunks.push(chunk);
    }
  } catch (error) {
    throw explainNetworkError(error, operation, signal);
  } finally {
    watch.stop();
  }
  return Buffer.concat(chunks);
}

export function tooLong(operation: string, limit: number): CimletError {
  return new CimletError('corrupt', `${operation}: more than the ${limit} bytes such a document may have`);
}

const HINTS: Partial<Record<ErrorCode, string>> = {
  'access-denied': SIGN_IN_HINT,
  'not-found': 'check repository and tag, or digest; some registries hide what one has to be signed in for',
};

/** The error that an answer amounts to, in the registry's own words where it has some. */
export async function refuse(answer: Answer, operation: string, signal: AbortSignal): Promise<CimletError> {
  const { status, headers, url } = answer;
  const quote = await readQuote(answer, signal);
  const message = `${operation}: ${url.host} answers HTTP ${status}${quote === '' ? '' : `, ${quote}`}`;
  if (status === 429 || status === 408 || status >= 500) {
    const retryAfterMs = parseRetryAfter(headers['retry-after'], Date.now());
    const wait = retryAfterMs === undefined ? '' : `; it asks to wait ${Math.ceil(retryAfterMs / 1000)} s`;
    const hint =
      status === 429
        ? 'the registry limits how much may be pulled: sign in, wait, or use a mirror'
        : undefined;
    return new TransientError(message + wait, { retryAfterMs, hint });
  }
  const code = codeOf(status);
  return new CimletError(code, message, { hint: HINTS[code] });
}

function codeOf(status: number): ErrorCode {
  if (status === 401 || status === 403 || status === 407) return 'access-denied';
  if (status === 404 || status === 410) return 'not-found';
  return 'corrupt';
}

/** `errors` of the answer, as OCI distribution-spec has it. */
async function readQuote(answer: Answer, signal: AbortSignal): Promise<string> {
  let text: string;
  try {
    text = (await readAnswer(answer, 'read error', ERROR_BODY_LIMIT, signal)).toString('utf8');
  } catch {
    // The status says enough.
    return '';
  }
  const quote = errorsIn(text)
    .map(({ code, message }) =>
      [code, message].filter((part) => typeof part === 'string' && part !== '').join(': '),
    )
    .join('; ')
    .slice(0, LONGEST_QUOTE);
  return answer.secrets.some((secret) => secret !== '' && text.includes(secret)) ? '' : quote;
}

function errorsIn(text: string): { code?: unknown; message?: unknown }[] {
  try {
    const value = JSON.parse(text) as { errors?: unknown } | null;
    const errors = Array.isArray(value?.errors) ? value.errors : [];
    return errors.filter((each: unknown) => typeof each === 'object' && each !== null);
  } catch {
    return [];
  }
}

/** What of an Authorization header must not be quoted: the token or password, as sent and as it was given. */
export function secretsOf(authorization: string | undefined): string[] {
  if (authorization === undefined) return [];
  const [scheme = '', value = ''] = authorization.split(' ');
  if (scheme !== 'Basic') return [value];
  const decoded = Buffer.from(value, 'base64').toString('utf8');
  return [value, decoded.slice(decoded.indexOf(':') + 1)];
}
