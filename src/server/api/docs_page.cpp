// The REST side as a page: made in the reader's browser from the OpenAPI document. No outside asset, and all of it
// named from where the page stands, so that it works below a path of somebody's proxy.
#include "server/api/routes.hpp"

namespace grange::server {

std::string docs_html() {
  return R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Grange API</title><link rel="stylesheet" href="assets/docs.css"></head>
<body><header><h1>Grange <span>API</span></h1><nav><a href="./">Farm</a><a href="openapi.json">openapi.json</a></nav></header>
<main id="docs"><p class="muted">Reading the document&hellip;</p></main>
<script src="assets/docs.js"></script></body></html>
)";
}

std::string_view docs_script() {
  return R"JS('use strict';
const make = (tag, text, cls) => { const e = document.createElement(tag); if (text) e.textContent = text; if (cls) e.className = cls; return e; };
const schemaName = (content) => {
  if (!content) return '';
  const type = Object.keys(content)[0], s = content[type].schema;
  if (s.$ref) return s.$ref.split('/').pop();
  if (s.items && s.items.$ref) return 'list of ' + s.items.$ref.split('/').pop();
  return type;
};
const typeName = (s) => s.type ? [].concat(s.type).join(' or ') : s.oneOf ? s.oneOf.map(typeName).join(' or ') : 'any';
fetch('openapi.json').then(r => r.json()).then(doc => {
  const main = document.getElementById('docs');
  main.textContent = '';
  main.append(make('p', doc.info.description));
  const groups = {};
  for (const [path, methods] of Object.entries(doc.paths))
    for (const [method, op] of Object.entries(methods)) (groups[op.tags[0]] ??= []).push([method, path, op]);
  for (const [tag, list] of Object.entries(groups)) {
    main.append(make('h2', tag));
    for (const [method, path, op] of list) {
      const box = make('details', '', 'route');
      const head = make('summary');
      head.append(make('b', method.toUpperCase(), 'method ' + method), make('code', path), make('span', op.summary, 'muted'));
      box.append(head);
      if (op.parameters.length) {
        const table = make('table');
        for (const p of op.parameters) {
          const row = make('tr');
          row.append(make('td', p.name), make('td', p.in + ', ' + typeName(p.schema)), make('td', p.description));
          table.append(row);
        }
        box.append(table);
      }
      const body = op.requestBody && schemaName(op.requestBody.content), answer = schemaName(op.responses['200'].content);
      if (body) box.append(make('p', 'Takes: ' + body));
      if (answer) box.append(make('p', 'Answers: ' + answer));
      box.append(make('p', 'Right: ' + op['x-action'] + (op.security ? ' (open to all)' : ''), 'muted'));
      main.append(box);
    }
  }
  main.append(make('h2', 'schemas'));
  for (const [name, s] of Object.entries(doc.components.schemas)) {
    const box = make('details', '', 'route');
    const head = make('summary');
    head.append(make('b', name), make('span', s.description || '', 'muted'));
    box.append(head);
    const table = make('table');
    for (const [key, value] of Object.entries(s.properties || {})) {
      const row = make('tr');
      row.append(make('td', key), make('td', typeName(value)));
      table.append(row);
    }
    box.append(table);
    main.append(box);
  }
});
)JS";
}

std::string_view docs_style() {
  return R"(:root{--bg:#f7f6f2;--card:#fff;--ink:#23281f;--soft:#6c7363;--line:#e2e0d6;--accent:#3f7d3a;--warn:#b4681a;--bad:#b3352b;--bar:#dfe6d8}
@media(prefers-color-scheme:dark){:root{--bg:#161914;--card:#1f231c;--ink:#e8ebe3;--soft:#98a08e;--line:#31372c;--accent:#7fbf73;--warn:#e0a158;--bad:#ec7f74;--bar:#2c3328}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
header{display:flex;align-items:center;gap:1rem;padding:1rem 1.5rem;border-bottom:1px solid var(--line);background:var(--card)}
h1{font-size:1.2rem;margin:0;letter-spacing:.02em;color:var(--accent)}h1 span{color:var(--soft);font-weight:400}
nav{margin-left:auto;display:flex;gap:1rem}a{color:var(--accent)}
main{max-width:1100px;margin:0 auto;padding:1.5rem}
h2{font-size:1rem;margin:2rem 0 .6rem}
table{width:100%;border-collapse:collapse}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;overflow-x:auto}
.card th,.card td{white-space:nowrap;overflow-wrap:normal;max-width:20rem;overflow:hidden;text-overflow:ellipsis}
th,td{text-align:left;padding:.45rem .8rem;border-bottom:1px solid var(--line);overflow-wrap:anywhere}
tr:last-child td{border-bottom:0}th{font-size:.8rem;color:var(--soft);font-weight:600}
.n{text-align:right;font-variant-numeric:tabular-nums}.wide{width:28%;min-width:7rem}
.empty{background:var(--card);border:1px dashed var(--line);border-radius:10px;padding:1.2rem;color:var(--soft)}
code{font-family:ui-monospace,monospace;color:var(--ink)}
[hidden]{display:none!important}form{margin-bottom:1rem;display:flex;gap:.6rem}input,button{font:inherit;padding:.3rem .6rem;border:1px solid var(--line);border-radius:6px;background:var(--card);color:var(--ink)}
.route{background:var(--card);border:1px solid var(--line);border-radius:8px;margin:.4rem 0;padding:.5rem .8rem}
.route summary{cursor:pointer;display:flex;gap:.8rem;align-items:baseline;flex-wrap:wrap}.route table{margin:.6rem 0}
.method{min-width:4rem}.get{color:var(--accent)}.post,.put{color:var(--warn)}.delete{color:var(--bad)}
@media(max-width:600px){header,main{padding:1rem}th,td{padding:.45rem .6rem}.card th,.card td{max-width:9rem}}
)";
}

}  // namespace grange::server
