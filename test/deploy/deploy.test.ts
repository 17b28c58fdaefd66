/** deploy/: what others read, held against what they understand and what the agent really offers. */

import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { loadAgentConfig } from '../../src/manifests/agent-config.ts';
import { createMetrics } from '../../src/server/metrics.ts';
import { openWorld } from '../reconciler/support.ts';
import { hasTool, requireOrSkip } from '../support/requirements.ts';

const REPOSITORY = resolve(import.meta.dirname, '../..');
const DEPLOY = join(REPOSITORY, 'deploy');
const promtool = requireOrSkip('promtool (package prometheus)', hasTool('promtool'));

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cimlet-deploy-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

interface KubernetesObject {
  apiVersion: string;
  kind: string;
  metadata: { name: string };
}

function kubernetesObjects(): KubernetesObject[] {
  const text = readFileSync(join(DEPLOY, 'kubernetes/cimlet.yaml'), 'utf8');
  return parseAllDocuments(text).map((document) => {
    expect(document.errors).toEqual([]);
    return document.toJS() as KubernetesObject;
  });
}

const objectOf = <T>(kind: string) =>
  kubernetesObjects().find((each) => each.kind === kind) as T & KubernetesObject;

interface DaemonSet {
  spec: {
    selector: { matchLabels: object };
    template: {
      metadata: { labels: object };
      spec: {
        containers: { ports: { name: string; containerPort: number }[]; env: { name: string }[] }[];
        terminationGracePeriodSeconds: number;
      };
    };
  };
}

describe('the manifest for Kubernetes', () => {
  /** The types come from Kubernetes' own OpenAPI schema: a field that it doesn't have, or a wrong type, is an error. */
  const check = (objects: KubernetesObject[]): string => {
    symlinkSync(join(REPOSITORY, 'node_modules'), join(folder, 'node_modules'));
    const modules: Record<string, string> = { v1: 'core/v1', 'apps/v1': 'apps/v1' };
    const lines = objects.map(
      (object, index) =>
        `export const o${index}: import('kubernetes-types/${modules[object.apiVersion]}').${object.kind} = ${JSON.stringify(object, undefined, 1)};`,
    );
    const file = join(folder, 'objects.ts');
    writeFileSync(file, lines.join('\n'));
    const tsc = join(REPOSITORY, 'node_modules/typescript/bin/tsc');
    const flags = ['--noEmit', '--strict', '--skipLibCheck', '--module', 'nodenext', '--types', ''];
    try {
      return execFileSync(process.execPath, [tsc, ...flags, file], { encoding: 'utf8', cwd: folder });
    } catch (error) {
      return (error as { stdout: string }).stdout;
    }
  };

  test('has objects as Kubernetes describes them', () => {
    expect(check(kubernetesObjects())).toBe('');
  });

  test('and that would be noticed', () => {
    const misspelt = JSON.parse(JSON.stringify(kubernetesObjects()).replace('hostProcess', 'hostProces'));
    expect(check(misspelt)).toContain('hostProces');
  });

  test('keeps to the rules that are patterns there: names, labels, quantities, ports', () => {
    // As the API server checks them (apimachinery: validation.go, quantity.go).
    const label = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
    const value = /^(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?$/;
    const labelKey = /^([a-z0-9.-]{1,253}\/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;
    const quantity = /^[+-]?([0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$/;
    const faults: string[] = [];
    const check = (place: string, text: unknown, pattern: RegExp) => {
      if (!pattern.test(String(text))) faults.push(`${place}: ${String(text)}`);
    };
    const visit = (place: string, node: unknown): void => {
      if (typeof node !== 'object' || node === null) return;
      for (const [key, child] of Object.entries(node)) {
        const at = `${place}.${key}`;
        if (key === 'name' && !place.includes('.env.')) check(at, child, label);
        if (['labels', 'matchLabels', 'nodeSelector'].includes(key))
          for (const [name, text] of Object.entries(child as object)) {
            check(at, name, labelKey);
            check(at, text, value);
          }
        else if (['requests', 'limits'].includes(key))
          for (const amount of Object.values(child as object)) check(at, amount, quantity);
        else visit(at, child);
      }
    };
    for (const object of kubernetesObjects()) visit(object.kind, object);
    expect(faults).toEqual([]);
  });

  test('its image has what the manifest and its sources need, git of a known digest', () => {
    const dockerfile = readFileSync(join(DEPLOY, 'kubernetes/Dockerfile'), 'utf8');
    const copied = [...dockerfile.matchAll(/^COPY (?:--from=\w+ )?\S+ \/(\w+)$/gm)].map(([, name]) => name);
    const text = JSON.stringify(objectOf<DaemonSet>('DaemonSet'));
    const used = [...text.matchAll(/MOUNT_POINT%\\\\(\w+)/g)].map(([, name]) => name);
    expect([...new Set(used)].sort()).toEqual([...copied, 'etc'].sort());
    expect(dockerfile).toMatch(/^ARG MINGIT_SHA256=[0-9a-f]{64}$/m);
  });

  test('holds together: selector, port, probes, token, time to stop, and a configuration the agent takes', async () => {
    const { spec } = objectOf<DaemonSet>('DaemonSet');
    expect(spec.template.metadata.labels).toMatchObject(spec.selector.matchLabels);
    expect(spec.template.spec.terminationGracePeriodSeconds).toBeGreaterThan(30);
    const { data } = objectOf<{ data: { 'cimlet.yaml': string } }>('ConfigMap');
    const file = join(folder, 'cimlet.yaml');
    writeFileSync(file, data['cimlet.yaml']);
    const { config } = await loadAgentConfig(file);
    const [container] = spec.template.spec.containers;
    expect(config.listen?.address).toBe(`0.0.0.0:${container?.ports[0]?.containerPort}`);
    expect(container?.env.map(({ name }) => name)).toContain(
      (config.listen as { tokenVariable?: string }).tokenVariable,
    );
  });
});

/** Every name that /metrics may show. */
async function metricNames(): Promise<Set<string>> {
  const world = openWorld();
  try {
    const text = await createMetrics(world.state, () => []).render();
    const types = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)];
    return new Set(
      types.flatMap(([, name = '', type]) =>
        type === 'histogram' ? [`${name}_bucket`, `${name}_count`, `${name}_sum`] : [name],
      ),
    );
  } finally {
    world.close();
  }
}

/** Metrics that an expression names. `up` is Prometheus' own. */
function namesIn(expression: string): string[] {
  return [...expression.matchAll(/\b(cimlet|process|nodejs)_\w+/g)].map(([name]) => name);
}

describe('alerts for Prometheus', () => {
  test.runIf(promtool)('speak when they should, and not before', () => {
    copyFileSync(join(DEPLOY, 'prometheus/alerts.yaml'), join(folder, 'alerts.yaml'));
    copyFileSync(join(import.meta.dirname, 'alerts.test.yaml'), join(folder, 'alerts.test.yaml'));
    const said = execFileSync('promtool', ['test', 'rules', 'alerts.test.yaml'], {
      cwd: folder,
      encoding: 'utf8',
    });
    expect(said).toContain('SUCCESS');
  });

  test('are each tested, and name metrics that there are', async () => {
    const text = readFileSync(join(DEPLOY, 'prometheus/alerts.yaml'), 'utf8');
    const tests = readFileSync(join(import.meta.dirname, 'alerts.test.yaml'), 'utf8');
    const alerts = [...text.matchAll(/alert: (\w+)/g)].map(([, name = '']) => name);
    expect(alerts.filter((name) => !tests.includes(`alertname: ${name}`))).toEqual([]);
    const known = await metricNames();
    expect(namesIn(text).filter((name) => !known.has(name))).toEqual([]);
  });
});

describe('the dashboard for Grafana', () => {
  interface Dashboard {
    panels: {
      id: number;
      title: string;
      gridPos: Record<'x' | 'y' | 'w' | 'h', number>;
      targets: { expr: string }[];
    }[];
    templating: { list: { name: string; query: string | { query: string } }[] };
  }
  const dashboard = JSON.parse(readFileSync(join(DEPLOY, 'grafana/cimlet.json'), 'utf8')) as Dashboard;
  const expressions = dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr));

  test('names metrics that there are', async () => {
    const known = await metricNames();
    const queries = dashboard.templating.list.map(({ query }) =>
      typeof query === 'string' ? query : query.query,
    );
    const unknown = [...expressions, ...queries].flatMap(namesIn).filter((name) => !known.has(name));
    expect(unknown).toEqual([]);
  });

  test.runIf(promtool)('has expressions that Prometheus understands', () => {
    const rules = expressions.map((expr, index) => ({
      record: `panel:${index}`,
      expr: expr.replaceAll('$__rate_interval', '5m').replaceAll('$instance', '.*'),
    }));
    // JSON is YAML.
    writeFileSync(join(folder, 'rules.yaml'), JSON.stringify({ groups: [{ name: 'dashboard', rules }] }));
    const said = execFileSync('promtool', ['check', 'rules', 'rules.yaml'], {
      cwd: folder,
      encoding: 'utf8',
    });
    expect(said).toContain(`SUCCESS: ${rules.length} rules found`);
  });

  test('has panels that do not overlap', () => {
    const { panels } = dashboard;
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    for (const { title, gridPos: a } of panels) {
      expect(a.x + a.w, title).toBeLessThanOrEqual(24);
      const over = panels.filter(
        ({ title: other, gridPos: b }) =>
          other !== title && a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h,
      );
      expect(
        over.map((each) => each.title),
        title,
      ).toEqual([]);
    }
  });
});
