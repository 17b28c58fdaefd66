/** What git's messages mean. The one table of git's phrases (in English: git is run with LC_ALL=C). */

import { CimletError, type ErrorCode } from '../errors.ts';

interface Meaning {
  phrase: RegExp;
  code: ErrorCode;
  hint?: string;
}

/** The first phrase found counts. */
const MEANINGS: readonly Meaning[] = [
  // With a path it is said of the cache, not of the server.
  { phrase: /not a git repository: '/, code: 'corrupt' },
  {
    phrase: /Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|host key .* not known/i,
    code: 'access-denied',
    hint: "put the server's host key in credentials.knownHostsFile, after checking it with whoever runs the server",
  },
  {
    phrase: /UNPROTECTED PRIVATE KEY FILE/,
    code: 'access-denied',
    hint: 'let nobody but the user that cimlet runs as read credentials.sshKeyFile',
  },
  {
    phrase: /SSL certificate|certificate verif|SSL: no alternative certificate|self.signed certificate/i,
    code: 'access-denied',
    hint: "name the certificate of the server's authority in caFile",
  },
  {
    phrase: /unable to update url base from redirection|returned error: 30\d|Maximum .*redirects/i,
    code: 'not-found',
    hint: 'the server answers from another address; redirections are not followed: write that address',
  },
  {
    phrase:
      /Authentication failed|could not read (Username|Password)|returned error: 40[13]|Permission denied|terminal prompts disabled|Access denied|Too many authentication failures/i,
    code: 'access-denied',
    hint: 'check credentials, and that they may read this repository',
  },
  {
    phrase: /dubious ownership/,
    code: 'access-denied',
    hint: 'a repository in a folder must belong to the user that cimlet runs as',
  },
  { phrase: /No space left on device|disk quota exceeded/i, code: 'no-space' },
  {
    phrase: /unadvertised object|not our ref|remote ref .* not found|couldn't find remote ref/i,
    code: 'not-found',
    hint: 'the server has no such commit (any more), or gives none but the heads of branches and tags',
  },
  {
    phrase:
      /repository .*not found|does not appear to be a git repository|returned error: 404|not a git repository/i,
    code: 'not-found',
    hint: 'check the address, and that the credentials may see this repository',
  },
  {
    phrase:
      /Could not resolve|Failed to connect|Couldn't connect|Connection (refused|reset|timed out|closed)|Operation timed out|Operation too slow|returned error: (5\d\d|429)|RPC failed|early EOF|hung up unexpectedly|Empty reply|Timeout/i,
    code: 'unavailable',
  },
  {
    phrase:
      /\.lock': File exists|bad object|corrupt|packfile|loose object|unable to read|inflate|missing (blob|tree|commit)/i,
    code: 'corrupt',
  },
];

const LONGEST_DETAIL = 500;

/** The error for a git that ended badly. `stderr` may hold anything that a server wrote, but none of the secrets. */
export function describeGitFailure(operation: string, stderr: string): CimletError {
  const meaning = MEANINGS.find(({ phrase }) => phrase.test(stderr));
  return new CimletError(
    meaning?.code ?? 'unavailable',
    `${operation}: ${detailOf(stderr, meaning?.phrase)}`,
    {
      hint: meaning?.hint,
    },
  );
}

/** The lines that gave it its meaning, else what git itself said, else all; in one line, without what a terminal would act on. */
function detailOf(stderr: string, phrase: RegExp | undefined): string {
  const lines = stderr.split('\n').map((line) => steady(line.replace(/\p{Cc}+/gu, ' ').trim()));
  const telling = lines.filter((line) => phrase?.test(line));
  const own = lines.filter((line) => /^(fatal|error):/.test(line));
  const told = telling.length > 0 ? telling : own.length > 0 ? own : lines.filter((line) => line !== '');
  const text = [...new Set(told)].join('; ');
  if (text === '') return 'git failed without a word';
  return text.length > LONGEST_DETAIL ? `${text.slice(0, LONGEST_DETAIL)}…` : text;
}

/** Without what is another each time, so that the same trouble is the same event: how long, how much, names made up for once. */
function steady(line: string): string {
  return line
    .replace(/ after \d+ (ms|milliseconds|seconds)\b/g, '')
    .replace(/\b\d+( out of \d+)? bytes\b/g, 'some bytes')
    .replace(/\b(tmp|rm)-[0-9a-f]{8}[0-9a-f-]*/g, '$1-...')
    .replace(/\brepository-[0-9a-f]{8}\b/g, 'repository-...')
    .replace(/\btmp_(pack|idx|rev|obj)_\w+/g, 'tmp_$1_...');
}

/** Takes secrets out of a text, also in the forms that HTTP and addresses give them. */
export function redact(text: string, secrets: readonly string[]): string {
  const forms = secrets
    .filter((secret) => secret !== '')
    .flatMap((secret) => [secret, encodeURIComponent(secret), Buffer.from(secret).toString('base64')]);
  return forms.reduce((rest, form) => rest.replaceAll(form, '***'), text);
}
