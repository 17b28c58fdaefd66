/** Loaded first by a program: writes into a file which modules of node_modules it loads, and from where. */

const { writeFileSync } = require('node:fs');
const { registerHooks } = require('node:module');
const { join } = require('node:path');
const { pathToFileURL } = require('node:url');

const ROOT = pathToFileURL(join(__dirname, '../../../')).href;
const PACKAGES = `${ROOT}node_modules/`;

const resolved = {};
const modules = {};

registerHooks({
  resolve(specifier, context, nextResolve) {
    const found = nextResolve(specifier, context);
    const { parentURL = '' } = context;
    if (found.url.startsWith(PACKAGES))
      resolved[`${kindOf(context)} ${parentURL.slice(ROOT.length)} ${specifier}`] = found.url.slice(
        ROOT.length,
      );
    return found;
  },
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context);
    const kind = kindOf(context);
    const format = loaded.format ?? 'commonjs';
    // What is imported as CommonJS is read again when it is required.
    if (url.startsWith(PACKAGES) && (kind === 'require' || format === 'module'))
      modules[`${kind} ${url.slice(ROOT.length)}`] = { format, source: String(loaded.source) };
    return loaded;
  },
});
process.once('exit', () =>
  writeFileSync(process.env.CIMLET_TEST_RECORD, JSON.stringify({ resolved, modules })),
);

function kindOf({ conditions }) {
  return conditions.includes('import') ? 'import' : 'require';
}
