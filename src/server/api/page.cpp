// The farm as one plain page: figures, jobs and workers, live. No outside asset; the script uses the same REST and
// events as everyone.
#include "server/api/routes.hpp"

namespace grange::server {

std::string_view page_html() {
  return R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Grange</title><link rel="stylesheet" href="/assets/page.css"></head>
<body>
<header><h1>Grange</h1><span id="live" class="badge">connecting</span><nav><a href="/docs">API</a></nav></header>
<main>
<form id="token" hidden><label>This server wants its token <input id="token-text" type="password" autocomplete="off"></label><button>Use it</button></form>
<section id="figures" class="figures" aria-label="Figures"></section>
<h2>Jobs</h2>
<div id="no-jobs" class="empty" hidden>No job yet. Try: <code>grange run -- echo hello</code></div>
<div class="card" id="jobs" hidden><table><thead><tr><th>Job</th><th>Name</th><th>Status</th><th class="wide less">Progress</th><th class="n">Done</th><th class="n less">Failed</th><th class="less">Submitted</th></tr></thead><tbody></tbody></table></div>
<h2>Workers</h2>
<div id="no-workers" class="empty" hidden>No worker yet. On any machine: <code id="worker-command"></code></div>
<div class="card" id="workers" hidden><table><thead><tr><th>Worker</th><th>Status</th><th class="n">Running</th><th class="n">Slots</th><th class="n">CPU</th><th class="n">Completed</th><th class="n less">Failed</th><th class="less">Engines</th></tr></thead><tbody></tbody></table></div>
</main>
<script src="/assets/page.js"></script>
</body></html>
)";
}

std::string_view page_style() {
  return R"(:root{--bg:#f7f6f2;--card:#fff;--ink:#23281f;--soft:#6c7363;--line:#e2e0d6;--accent:#3f7d3a;--warn:#b4681a;--bad:#b3352b;--bar:#dfe6d8}
@media(prefers-color-scheme:dark){:root{--bg:#161914;--card:#1f231c;--ink:#e8ebe3;--soft:#98a08e;--line:#31372c;--accent:#7fbf73;--warn:#e0a158;--bad:#ec7f74;--bar:#2c3328}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
header{display:flex;align-items:center;gap:1rem;padding:1rem 1.5rem;border-bottom:1px solid var(--line);background:var(--card)}
h1{font-size:1.2rem;margin:0;letter-spacing:.02em;color:var(--accent)}h1 span{color:var(--soft);font-weight:400}
nav{margin-left:auto;display:flex;gap:1rem}a{color:var(--accent)}
main{max-width:1100px;margin:0 auto;padding:1.5rem}
h2{font-size:1rem;margin:2rem 0 .6rem}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(136px,1fr));gap:.8rem}
.figure{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.8rem 1rem;min-width:0;overflow-wrap:anywhere}
.figure b{display:block;font-size:1.6rem;font-variant-numeric:tabular-nums;line-height:1.2}
.figure span,.muted{color:var(--soft);font-size:.85rem}
table{width:100%;border-collapse:collapse}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;overflow-x:auto}
.card th,.card td{white-space:nowrap;overflow-wrap:normal;max-width:20rem;overflow:hidden;text-overflow:ellipsis}
th,td{text-align:left;padding:.45rem .8rem;border-bottom:1px solid var(--line);overflow-wrap:anywhere}
tr:last-child td{border-bottom:0}th{font-size:.8rem;color:var(--soft);font-weight:600}
.n{text-align:right;font-variant-numeric:tabular-nums}.wide{width:28%;min-width:7rem}
progress{width:100%;height:.6rem;appearance:none;border:0;border-radius:4px;overflow:hidden;background:var(--bar)}
progress::-webkit-progress-bar{background:var(--bar)}progress::-webkit-progress-value{background:var(--accent)}progress::-moz-progress-bar{background:var(--accent)}progress.bad::-webkit-progress-value{background:var(--bad)}progress.bad::-moz-progress-bar{background:var(--bad)}progress.cancelled::-webkit-progress-value{background:var(--soft)}progress.cancelled::-moz-progress-bar{background:var(--soft)}
.badge{font-size:.8rem;padding:.1rem .6rem;border-radius:99px;border:1px solid var(--line);color:var(--soft)}
.completed,.online,.on{color:var(--accent)}.failed,.offline{color:var(--bad)}.cancelled{color:var(--soft)}.draining,.reconnecting,.busy{color:var(--warn)}
.empty{background:var(--card);border:1px dashed var(--line);border-radius:10px;padding:1.2rem;color:var(--soft)}
code{font-family:ui-monospace,monospace;color:var(--ink)}
[hidden]{display:none!important}form{margin-bottom:1rem;display:flex;gap:.6rem}input,button{font:inherit;padding:.3rem .6rem;border:1px solid var(--line);border-radius:6px;background:var(--card);color:var(--ink)}
.route{background:var(--card);border:1px solid var(--line);border-radius:8px;margin:.4rem 0;padding:.5rem .8rem}
.route summary{cursor:pointer;display:flex;gap:.8rem;align-items:baseline;flex-wrap:wrap}.route table{margin:.6rem 0}
.method{min-width:4rem}.get{color:var(--accent)}.post,.put{color:var(--warn)}.delete{color:var(--bad)}
@media(max-width:600px){header,main{padding:1rem}th,td{padding:.45rem .6rem}.less{display:none}.card th,.card td{max-width:9rem}.figures{grid-template-columns:repeat(2,1fr)}}
)";
}

std::string_view page_script() {
  return R"JS('use strict';
const $ = (id) => document.getElementById(id);
const make = (tag, text, cls) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text; if (cls) e.className = cls; return e; };
let token = sessionStorage.getItem('grange-token') || '';
const headers = () => token ? { Authorization: 'Bearer ' + token } : {};
const jobs = new Map();
let next = null, wait = 1000, dirty = false;

async function get(path) {
  const r = await fetch(path, { headers: headers() });
  if (r.status === 401) { $('token').hidden = false; throw new Error('token'); }
  if (!r.ok) throw new Error(path + ': ' + r.status);
  return r.json();
}
$('token').addEventListener('submit', (e) => {
  e.preventDefault();
  token = $('token-text').value.trim();
  sessionStorage.setItem('grange-token', token);
  $('token').hidden = true;
  start();
});

const number = (n) => Number(n).toLocaleString();
const short = new Intl.NumberFormat(undefined, { notation: 'compact', maximumFractionDigits: 1 });
const named = (text) => { const e = make('td', text); e.title = text; return e; };
function showStats(s) {
  const box = $('figures');
  box.textContent = '';
  for (const [label, value] of [['jobs', s.total_jobs], ['unfinished jobs', s.pending_jobs], ['tasks completed', s.total_tasks_completed], ['tasks waiting', s.queued_tasks],
    ['tasks at workers', s.active_tasks], ['workers', s.connected_workers], ['slots', s.slots]]) {
    const f = make('div', undefined, 'figure');
    const figure = make('b', value < 1e7 ? number(value) : short.format(value));
    figure.title = number(value);
    f.append(figure, make('span', label));
    box.append(f);
  }
  if (s.storage_full) box.append(make('div', 'The disk is full: new work is refused.', 'figure failed'));
}
function showJobs() {
  const list = [...jobs.values()].sort((a, b) => b.job - a.job).slice(0, 50);
  $('no-jobs').hidden = list.length > 0;
  $('jobs').hidden = list.length === 0;
  const body = $('jobs').querySelector('tbody');
  body.textContent = '';
  for (const j of list) {
    const row = make('tr'), bar = make('progress'), cell = make('td', undefined, 'less');
    bar.max = j.total_tasks;
    bar.value = j.completed_tasks + j.failed_tasks + j.cancelled_tasks;
    if (j.status === 'cancelled') bar.className = 'cancelled';
    if (j.failed_tasks > 0) bar.className = 'bad';
    cell.append(bar);
    row.append(named(j.id), named(j.name), make('td', j.status, j.status), cell, make('td', number(j.completed_tasks) + ' / ' + number(j.total_tasks), 'n'),
      make('td', number(j.failed_tasks), 'n less'), make('td', j.created_at ? new Date(j.created_at).toLocaleTimeString() : '', 'less'));
    body.append(row);
  }
}
function showWorkers(list) {
  list = list.filter((w) => w.status !== 'offline' || Date.now() - new Date(w.last_seen) < 86400e3);
  $('no-workers').hidden = list.length > 0;
  $('workers').hidden = list.length === 0;
  const body = $('workers').querySelector('tbody');
  body.textContent = '';
  for (const w of list) {
    const row = make('tr');
    row.append(named(w.name || w.id), make('td', w.status, w.status), make('td', number(w.running), 'n'), make('td', number(w.slots), 'n'),
      make('td', w.cpu_percent === null ? '' : w.cpu_percent.toFixed(0) + ' %', 'n'), make('td', number(w.tasks_completed), 'n'), make('td', number(w.tasks_failed), 'n less'),
      make('td', w.engines.join(', '), 'less'));
    body.append(row);
  }
}
async function snapshot() {
  const s = await get('/api/stats');
  next = s.next_event;
  showStats(s);
  jobs.clear();
  for (const j of await get('/api/jobs?limit=50')) jobs.set(j.id, j);
  showJobs();
  showWorkers(await get('/api/workers'));
}
function event(type, data) {
  if (type === 'gap') return snapshot();
  if (type === 'hello') return;
  const fact = JSON.parse(data);
  next = fact.event + 1;
  if (fact.topic === 'jobs') {
    jobs.set(fact.job_id, { ...(jobs.get(fact.job_id) || { created_at: fact.time }), ...fact.data });
    showJobs();
  }
  if (fact.type === 'database_cleared') jobs.clear();
  dirty = true;
}
async function follow() {
  const r = await fetch('/api/events?topics=jobs,workers,system&from=' + next, { headers: headers() });
  if (!r.ok) throw new Error('events: ' + r.status);
  $('live').textContent = 'live';
  $('live').className = 'badge on';
  wait = 1000;
  const reader = r.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error('closed');
    text += value;
    let end;
    while ((end = text.indexOf('\n\n')) >= 0) {
      const block = text.slice(0, end);
      text = text.slice(end + 2);
      let type = 'message', data = '';
      for (const line of block.split('\n')) {
        if (line.startsWith('event: ')) type = line.slice(7);
        if (line.startsWith('data: ')) data = line.slice(6);
      }
      if (data) event(type, data);
    }
  }
}
let running = false;
async function start() {
  if (running) return;
  running = true;
  for (;;) {
    try {
      await snapshot();
      await follow();
    } catch (e) {
      $('live').textContent = e.message === 'token' ? 'token wanted' : 'not connected';
      $('live').className = 'badge failed';
      if (e.message === 'token') break;
    }
    await new Promise((r) => setTimeout(r, wait));
    wait = Math.min(wait * 2, 30000);
  }
  running = false;
}
$('worker-command').textContent = 'grange worker --server ' + location.origin;
setInterval(async () => {
  if (document.hidden || !dirty) return;
  dirty = false;
  try { showStats(await get('/api/stats')); showWorkers(await get('/api/workers')); } catch (e) { /* follow() says so */ }
}, 1000);
setInterval(() => { dirty = true; }, 5000);
start();
)JS";
}

}  // namespace grange::server
