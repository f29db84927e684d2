// The server's objects. The generated types mark every key as optional; what the server always sends is required here.
import type { Schemas } from './api';

type Have<T> = { [K in keyof T]-?: Exclude<T[K], undefined> };

export type JobState = 'pending' | 'running' | 'completed' | 'failed' | 'cancelled';
export type TaskState = 'pending' | 'assigned' | 'running' | 'completed' | 'failed' | 'cancelled' | 'blocked' | 'paused';
export type Stats = Have<Schemas['Stats']>;
export type Job = Omit<Have<Schemas['Job']>, 'status'> & { status: JobState };
export type Task = Omit<Have<Schemas['Task']>, 'progress' | 'status'> & {
  status: TaskState;
  progress: { done?: number; total?: number; text?: string } | null;
};
export type Outcome = Schemas['Outcome'] & { index: number; status: string; attempt: number; run_ms: number };
export type LogLine = Have<Schemas['LogLine']>;
export type JobFile = Schemas['JobFile'] & Record<string, unknown>;
export type WorkerFailure = Have<Schemas['WorkerFailure']>;

export interface Gpu {
  name?: string;
  memory_bytes?: number;
  [key: string]: unknown;
}
export interface Load {
  network_in_bytes_per_s?: number | null;
  network_out_bytes_per_s?: number | null;
  disk_read_bytes_per_s?: number | null;
  disk_write_bytes_per_s?: number | null;
  temperature_c?: number | null;
  gpus?: { percent?: number | null; memory_used_bytes?: number | null; temperature_c?: number | null }[];
}
export interface ServiceModel {
  name: string;
  fit?: 'GOOD' | 'RISK' | 'FAIL' | 'UNKNOWN';
  [key: string]: unknown;
}
export interface Service {
  name: string;
  kind: string;
  state: string;
  version?: string;
  note?: string;
  parallel?: number;
  managed?: boolean; // started and watched by its worker
  pid?: number | null;
  restarts?: number;
  since_ms?: number | null;
  last_error?: string | null;
  models?: ServiceModel[];
  [key: string]: unknown;
}
export type Worker = Omit<Have<Schemas['Worker']>, 'gpus' | 'engines' | 'labels' | 'models' | 'services' | 'notes'> & {
  gpus: Gpu[];
  engines: string[];
  labels: Record<string, string>;
  models: string[];
  services: Service[];
  notes: string[];
  load?: Load;
  paused?: boolean;
};

export interface Wait {
  code: string;
  text: string;
  have?: unknown;
  need?: unknown;
  until?: string | null;
}
export interface WorkerVerdict {
  worker: string;
  could: boolean;
  now: boolean;
  alternative?: number;
  why?: { code?: string; text: string }[] | string[];
}
export type Explanation = Omit<Have<Schemas['Explanation']>, 'waits' | 'workers'> & {
  waits: Wait[];
  workers: WorkerVerdict[];
};

export interface Attention {
  kind: string;
  severity: 'error' | 'warn' | 'info';
  title: string;
  text: string;
  job_id?: string;
  index?: number;
  worker_id?: string;
  alert?: string | number; // of an alert, its id
}
export interface Overview {
  stats: Stats;
  throughput: { completed_per_s: number; submitted_per_s: number; failed_per_s: number };
  wait_ms: { p50: number | null; p95: number | null };
  failures: Record<string, number>;
  use: {
    cores: { used: number; total: number };
    memory: { used_bytes: number; total_bytes: number };
    gpus: { used: number; total: number };
  };
  distribution: { worker_id: string; name: string; running: number; completed: number }[];
  attention: Attention[];
}
export type Span = '15m' | '6h' | '7d';
export interface History {
  span: Span;
  step_ms: number;
  times_ms: number[];
  series: Record<string, (number | null)[]>;
}
export interface Grid {
  total: number;
  from: number;
  to: number;
  per_cell: number;
  states: Partial<Record<TaskState, number[]>>;
}

// A numbered fact of the event stream.
export interface Fact {
  event: number;
  topic: string;
  type: string;
  job_id?: string;
  time: string;
  data: any;
}
