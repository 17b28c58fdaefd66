/** Times the pure plan of a folder of manifests in one process; prints the median seconds as JSON. */

import { openImageAccess } from '../src/cli/resolve-image.ts';
import { loadManifests } from '../src/manifests/load.ts';
import { resolveImages } from '../src/reconciler/engine.ts';
import { planApply } from '../src/reconciler/plan.ts';
import { medianSeconds } from './report.ts';

const [folder = ''] = process.argv.slice(2);
const { resources, problems, revision } = await loadManifests([folder], {});
if (problems.length > 0) throw new Error(JSON.stringify(problems[0]));
const images = openImageAccess({
  platform: { os: 'windows', architecture: 'x64' },
  root: folder,
  store: 'none',
  offline: true,
  registry: { env: {}, configPath: undefined },
});
const resolved = await resolveImages(resources, images.resolveImage, new AbortController().signal);
const sources = [{ id: 'bench', revision, resources, prune: true }];
const plan = () => planApply({ sources, resolved, observed: undefined, records: undefined, root: '/bench' });
const { actions } = plan();
if (actions.length < resources.length)
  throw new Error(`${actions.length} actions for ${resources.length} resources`);
console.log(JSON.stringify({ seconds: await medianSeconds(5, plan) }));
await images.close();
