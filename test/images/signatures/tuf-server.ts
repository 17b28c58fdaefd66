/** A TUF repository over HTTP, its metadata signed here. Source: The Update Framework Specification 1.0, "Document formats". */

import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface TufServer {
  url: string;
  /** The root.json to begin with. */
  root: string;
  /** What is served at a path, to be changed. */
  files: Map<string, string>;
  /** Paths, in order. */
  asked: string[];
  close(): Promise<void>;
}

/** One key for all roles; `target` is the one file that there is. */
export async function startTufServer(target: { name: string; content: string }): Promise<TufServer> {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const { x = '' } = publicKey.export({ format: 'jwk' });
  const keyval = { public: Buffer.from(x, 'base64url').toString('hex') };
  const key = { keytype: 'ed25519', scheme: 'ed25519', keyval };
  const keyid = createHash('sha256').update(canonical(key)).digest('hex');
  const metadata = (type: string, content: object): string => {
    const expires = new Date(Date.now() + 86_400_000).toISOString().replace(/\.\d+/, '');
    const signed = { _type: type, spec_version: '1.0.31', version: 1, expires, ...content };
    const sig = sign(null, Buffer.from(canonical(signed)), privateKey).toString('hex');
    return JSON.stringify({ signed, signatures: [{ keyid, sig }] });
  };
  const role = { keyids: [keyid], threshold: 1 };
  const roles = { root: role, timestamp: role, snapshot: role, targets: role };
  const root = metadata('root', { consistent_snapshot: true, keys: { [keyid]: key }, roles });
  const hash = createHash('sha256').update(target.content).digest('hex');
  const described = { length: Buffer.byteLength(target.content), hashes: { sha256: hash } };
  const files = new Map([
    ['/1.root.json', root],
    ['/timestamp.json', metadata('timestamp', { meta: { 'snapshot.json': { version: 1 } } })],
    ['/1.snapshot.json', metadata('snapshot', { meta: { 'targets.json': { version: 1 } } })],
    ['/1.targets.json', metadata('targets', { targets: { [target.name]: described } })],
    [`/targets/${hash}.${target.name}`, target.content],
  ]);
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url ?? '');
    const content = files.get(request.url ?? '');
    response.writeHead(content === undefined ? 404 : 200);
    response.end(content);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    root,
    files,
    asked,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** OLPC's canonical JSON, as far as the above needs it: members sorted, nothing between them. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${canonical(member)}`).join()}}`;
}
