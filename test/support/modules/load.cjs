/**
 * Loaded first by every program and thread that a test starts (NODE_OPTIONS): takes modules from the archive that
 * archive.ts made, and leaves those that aren't in it to Node. Node 22 would strip types in every process and thread
 * anew, half of a short run; and under Wine each file that is looked for and opened costs milliseconds.
 */

const { openSync, readFileSync, readSync } = require('node:fs');
const { registerHooks } = require('node:module');
const { join } = require('node:path');
const { pathToFileURL } = require('node:url');

const REPOSITORY = join(__dirname, '../../..');
const ROOT = pathToFileURL(join(REPOSITORY, '/')).href;

const name = process.env.CIMLET_TEST_MODULES;
if (name && registerHooks !== undefined) {
  const place = join(REPOSITORY, 'node_modules/.cache/cimlet-modules', name);
  takeFrom(
    JSON.parse(readFileSync(join(place, 'index.json'), 'utf8')),
    openSync(join(place, 'sources'), 'r'),
  );
}

function takeFrom({ resolved, modules }, sources) {
  registerHooks({
    resolve(specifier, context, nextResolve) {
      const { parentURL = '' } = context;
      const kind = kindOf(context);
      const path =
        /^\.\.?\/.*\.ts$/.test(specifier) && parentURL.startsWith(ROOT)
          ? pathOf(new URL(specifier, parentURL).href)
          : resolved[`${kind} ${pathOf(parentURL)} ${specifier}`];
      const found = modules[`${kind} ${path}`];
      if (found === undefined) return nextResolve(specifier, context);
      return { url: ROOT + path, format: found.format, shortCircuit: true };
    },
    load(url, context, nextLoad) {
      const found = modules[`${kindOf(context)} ${pathOf(url)}`];
      if (found === undefined) return nextLoad(url, context);
      const source = Buffer.alloc(found.length);
      readSync(sources, source, 0, found.length, found.offset);
      return { format: found.format, source: source.toString(), shortCircuit: true };
    },
  });
}

function kindOf({ conditions }) {
  return conditions.includes('import') ? 'import' : 'require';
}

function pathOf(url) {
  return url.startsWith(ROOT) ? url.slice(ROOT.length) : url;
}
