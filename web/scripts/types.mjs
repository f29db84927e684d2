// Writes src/api/openapi.d.ts from a running server: GRANGE_URL=http://127.0.0.1:8000 npm run types
import { writeFileSync } from 'node:fs';
import openapiTS, { astToString } from 'openapi-typescript';

const farm = process.env.GRANGE_URL ?? 'http://127.0.0.1:8000';
const answer = await fetch(new URL('/openapi.json', farm));
if (!answer.ok) throw new Error(`${farm}/openapi.json answered ${answer.status}`);
const types = astToString(await openapiTS(await answer.text()));
const target = new URL('../src/api/openapi.d.ts', import.meta.url);
writeFileSync(target, `// Made by \`npm run types\` from the server's /openapi.json. Do not edit.\n${types}`);
