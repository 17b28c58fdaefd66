/** What a server asks for with 401. Source: RFC 9110 section 11.6.1, WWW-Authenticate. */

export interface Challenge {
  /** Lower case: `basic`, `bearer`. */
  scheme: string;
  /** Names in lower case. */
  parameters: Record<string, string>;
}

const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
const PARAMETER = new RegExp(
  `[\\s,]*(${TOKEN})\\s*=\\s*(?:"((?:[^"\\\\]|\\\\.)*)"|(${TOKEN}|[^\\s,"]+))`,
  'y',
);
const SCHEME = new RegExp(`[\\s,]*(${TOKEN})(?=\\s|,|$)(?!\\s*=)`, 'y');

/** Reads one or more challenges; stops at what it can't read. */
export function parseChallenges(header: string): Challenge[] {
  const challenges: Challenge[] = [];
  let at = 0;
  for (;;) {
    SCHEME.lastIndex = at;
    const scheme = SCHEME.exec(header);
    if (scheme === null) return challenges;
    const challenge: Challenge = { scheme: (scheme[1] ?? '').toLowerCase(), parameters: {} };
    at = SCHEME.lastIndex;
    for (;;) {
      PARAMETER.lastIndex = at;
      const parameter = PARAMETER.exec(header);
      if (parameter === null) break;
      const [, name = '', quoted, plain] = parameter;
      challenge.parameters[name.toLowerCase()] = quoted?.replace(/\\(.)/g, '$1') ?? plain ?? '';
      at = PARAMETER.lastIndex;
    }
    challenges.push(challenge);
  }
}
