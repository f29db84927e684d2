// Services and models of all machines, from the workers' manifests. Pure.
import type { Service, ServiceModel, Worker } from './types';

export interface GatewayService {
  worker_id: string;
  service: string;
  kind: string;
  state: string;
  active: number;
  parallel: number;
  models: number;
}
export interface Usage {
  principal?: string | null;
  model?: string | null;
  requests: number;
  completed: number;
  failed: number;
  cancelled: number;
  refused: number;
  tokens_in: number;
  tokens_out: number;
}
export interface GatewayFigures extends Usage {
  active: number;
  waiting: number;
  uncounted: number;
  bytes: number;
  failovers: number;
  ttft_ms: { of_the_last: number; p50: number | null; p90: number | null; p99: number | null };
  limits: { waiting: number; wait_ms: number };
  services: GatewayService[];
  usage_since?: string;
  usage: Usage[];
  recent: import('./chat').GatewayRecord[];
}

export interface ServiceRow {
  worker: Worker;
  service: Service;
  models: number;
  loaded: number;
  active: number | null; // streams of the gateway now; null: it does not go there
}
export interface Machine {
  worker: Worker;
  rows: ServiceRow[];
}

export const worker_name = (worker: Pick<Worker, 'id' | 'name'>): string => worker.name || worker.id;
// A folder of model files is no service that could be up or down.
export const is_files = (service: Pick<Service, 'kind'>): boolean => service.kind === 'files';
export const resettable = (service: Pick<Service, 'kind'>): boolean =>
  ['ollama', 'llamacpp', 'openai', 'comfyui'].includes(service.kind);
// What can be told to a service that its worker keeps running; others were only found.
export type Telling = 'start' | 'stop' | 'restart';
export const tellings = (service: Pick<Service, 'managed' | 'state'>): Telling[] =>
  !service.managed ? [] : ['stopped', 'failed'].includes(service.state) ? ['start'] : ['restart', 'stop'];
const commands: Record<string, string> = {
  ollama: '["ollama", "serve"]',
  llamacpp: '["llama-server", "--model", "model.gguf", "--port", "8080"]',
  comfyui: '["python", "main.py"]',
};
// The lines of the services file that put one under care.
export const care_of = (service: Pick<Service, 'name' | 'kind'> & { url?: unknown }): string =>
  [
    '[[service]]',
    `name = ${JSON.stringify(service.name)}`,
    `kind = "${service.kind}"`,
    `url = ${JSON.stringify(typeof service.url === 'string' ? service.url : 'http://127.0.0.1:PORT')}`,
    `command = ${commands[service.kind] ?? '["the program", "and its arguments"]'}`,
  ].join('\n');
export const removable = (service: Pick<Service, 'kind'>): boolean => service.kind === 'ollama' || is_files(service);

export function machines(workers: readonly Worker[], figures: readonly GatewayService[], text = ''): Machine[] {
  const active = new Map(figures.map((one) => [`${one.worker_id} ${one.service}`, one.active]));
  const wanted = text.trim().toLowerCase();
  const out: Machine[] = [];
  for (const worker of workers) {
    const rows = worker.services
      .filter((service) => {
        if (!wanted) return true;
        const words = [worker.name, worker.id, service.name, service.kind, service.state, ...(service.models ?? []).map((m) => m.name)];
        return words.join(' ').toLowerCase().includes(wanted);
      })
      .map((service) => ({
        worker,
        service,
        models: service.models?.length ?? 0,
        loaded: service.models?.filter((model) => model.loaded).length ?? 0,
        active: active.get(`${worker.id} ${service.name}`) ?? null,
      }));
    if (rows.length) out.push({ worker, rows });
  }
  return out.sort(
    (a, b) => Number(b.worker.connected) - Number(a.worker.connected) || worker_name(a.worker).localeCompare(worker_name(b.worker)),
  );
}

export interface Cell {
  worker: Worker;
  service: Service;
  model: ServiceModel;
}
export interface ModelRow {
  key: string;
  name: string;
  kind: string;
  model: ServiceModel; // of the first that has it
  cells: Map<string, Cell[]>; // by worker id
  loaded: boolean;
  removable: boolean;
}
export interface Matrix {
  columns: Worker[];
  rows: ModelRow[];
  more: number; // machines that have no column
}

export function matrix(workers: readonly Worker[], text = '', most_columns = 24): Matrix {
  const rows = new Map<string, ModelRow>();
  const count = new Map<string, number>();
  const wanted = text.trim().toLowerCase();
  for (const worker of workers) {
    for (const service of worker.services) {
      for (const model of service.models ?? []) {
        const kind = String(model.kind ?? '');
        const words = `${model.name} ${kind} ${model.family ?? ''} ${model.quantization ?? ''} ${worker_name(worker)}`;
        if (wanted && !words.toLowerCase().includes(wanted)) continue;
        const key = `${model.name} ${kind}`;
        let row = rows.get(key);
        if (!row) {
          row = { key, name: model.name, kind, model, cells: new Map(), loaded: false, removable: false };
          rows.set(key, row);
        }
        row.cells.set(worker.id, [...(row.cells.get(worker.id) ?? []), { worker, service, model }]);
        row.loaded ||= worker.connected && model.loaded === true;
        row.removable ||= worker.connected && removable(service);
        count.set(worker.id, (count.get(worker.id) ?? 0) + 1);
      }
    }
  }
  const columns = workers
    .filter((worker) => count.has(worker.id))
    .sort(
      (a, b) =>
        Number(b.connected) - Number(a.connected) ||
        count.get(b.id)! - count.get(a.id)! ||
        worker_name(a).localeCompare(worker_name(b)),
    );
  return {
    columns: columns.slice(0, most_columns),
    rows: [...rows.values()].sort((a, b) => a.kind.localeCompare(b.kind) || a.name.localeCompare(b.name)),
    more: Math.max(0, columns.length - most_columns),
  };
}

// The best that one machine can say of a model: a service that is up before one that is not, loaded before present.
export function best(cells: readonly Cell[]): Cell {
  const rank = (cell: Cell) => (cell.service.state === 'down' && !is_files(cell.service) ? 2 : 0) + (cell.model.loaded ? 0 : 1);
  return [...cells].sort((a, b) => rank(a) - rank(b))[0]!;
}

const fits: Record<string, Mark> = {
  GOOD: { text: 'fits', tone: 'good' },
  RISK: { text: 'tight', tone: 'warn' },
  FAIL: { text: 'too large', tone: 'bad' },
};
// What is to be said of a model in a place, in few words.
export interface Mark {
  text: string;
  tone: 'plain' | 'good' | 'warn' | 'bad';
  title?: string;
}
interface Held {
  state: string;
  service: string;
  loaded?: unknown;
  fit?: string;
  why?: string | undefined;
}
export function marks({ state, service, loaded, fit, why }: Held): Mark[] {
  if (state === 'down') return [{ text: `${service} is down`, tone: 'bad' }];
  const out: Mark[] = [];
  if (state === 'loading') out.push({ text: 'loading', tone: 'warn' });
  if (loaded) out.push({ text: 'loaded', tone: 'good', title: `In memory of ${service}: it answers at once` });
  const fitting = fits[fit ?? ''];
  // What is in memory fits; that it is tight there is still worth a word.
  if (fitting && !(loaded && fit === 'GOOD')) out.push(why ? { ...fitting, title: why } : fitting);
  return out.length ? out : [{ text: 'there', tone: 'plain' }];
}
export function marks_of({ worker, service, model }: Cell): Mark[] {
  if (!worker.connected) return [{ text: 'was here', tone: 'plain' }];
  if (is_files(service)) return [{ text: 'a file', tone: 'plain' }];
  const why = (model.fit_numbers as { reason?: string } | null | undefined)?.reason;
  return marks({ state: service.state, service: service.name, loaded: model.loaded, fit: model.fit, why });
}

// The body of POST /models/sync, or what is wrong.
export interface SyncForm {
  model: string;
  source: string;
  sha256: string;
  folder: string;
  workers: string[];
}
export function read_sync(form: SyncForm): { body: Record<string, unknown>; wrong: Partial<Record<keyof SyncForm, string>> } {
  const wrong: Partial<Record<keyof SyncForm, string>> = {};
  const source = form.source.trim();
  const sha = form.sha256.trim().toLowerCase();
  if (!form.model.trim() && !source) wrong.model = 'Name a model, such as llama3.2:3b';
  if (source && !/^https?:\/\/\S+$/.test(source) && !/^[0-9a-f]{64}$/.test(source))
    wrong.source = 'A URL (https://…), or the SHA-256 of a blob of the farm';
  if (sha && !/^[0-9a-f]{64}$/.test(sha)) wrong.sha256 = '64 hexadecimal characters';
  const body: Record<string, unknown> = {};
  if (form.model.trim()) body.model = form.model.trim();
  if (source) {
    body.source = source;
    if (sha) body.sha256 = sha;
    if (form.folder.trim()) body.folder = form.folder.trim();
  }
  if (form.workers.length) body.workers = form.workers;
  return { body, wrong };
}
