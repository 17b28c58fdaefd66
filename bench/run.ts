/** `npm run bench [-- case ...] [--json] [--runs=N]`: runs the cases named, or all. */

const CASES = [
  'unpack',
  'cim',
  'plan',
  'block',
  'merge',
  'seal',
  'pull',
  'ext4',
  'snapshot',
  'agent',
] as const;

const wanted = process.argv.slice(2).filter((argument) => !argument.startsWith('-'));
const unknown = wanted.filter((name) => !CASES.some((known) => known === name));
if (unknown.length > 0) {
  console.error(`unknown case ${unknown.join(', ')}; there are ${CASES.join(', ')}`);
  process.exitCode = 1;
} else {
  for (const name of CASES) {
    if (wanted.length > 0 && !wanted.includes(name)) continue;
    const { run } = (await import(`./${name}.ts`)) as { run: () => Promise<void> };
    await run();
  }
}
