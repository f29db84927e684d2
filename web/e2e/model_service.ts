// A service that speaks OpenAI's dialect and says what it is told to: a model without a model.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { sleep } from './farm.ts';

export interface Asked {
  model: string;
  messages: { role: string; content: string }[];
  temperature?: number;
  max_tokens?: number;
}

export class ModelService {
  url = '';
  words = 'The barn is full of hay .'.split(' ');
  pause_ms = 5;
  // answers, refuses before the first byte, or breaks off after some words
  mode: 'answers' | 'refuses' | 'breaks' = 'answers';
  asked: Asked[] = [];
  left = 0; // clients that went away before the end
  private server: Server | null = null;

  static async start(model: string): Promise<ModelService> {
    const out = new ModelService();
    out.server = createServer((question, answer) => void out.serve(model, question, answer));
    await new Promise<void>((done) => out.server!.listen(0, '127.0.0.1', done));
    out.url = `http://127.0.0.1:${(out.server.address() as { port: number }).port}`;
    return out;
  }
  private async serve(model: string, question: IncomingMessage, answer: ServerResponse): Promise<void> {
    if (question.method === 'GET' && question.url === '/v1/models') {
      answer.writeHead(200, { 'content-type': 'application/json' });
      return void answer.end(JSON.stringify({ object: 'list', data: [{ id: model, object: 'model', owned_by: 'test' }] }));
    }
    if (question.method !== 'POST' || question.url !== '/v1/chat/completions') {
      answer.writeHead(404, { 'content-type': 'application/json' });
      return void answer.end('{"error":{"message":"There is nothing here.","type":"invalid_request_error"}}');
    }
    let body = '';
    for await (const piece of question) body += String(piece);
    this.asked.push(JSON.parse(body) as Asked);
    if (this.mode === 'refuses') {
      answer.writeHead(503, { 'content-type': 'application/json' });
      return void answer.end('{"error":{"message":"No slot is free.","type":"server_error"}}');
    }
    let gone = false;
    answer.on('close', () => {
      if (!answer.writableFinished) {
        gone = true;
        ++this.left;
      }
    });
    answer.writeHead(200, { 'content-type': 'text/event-stream' });
    const send = (what: object) => answer.write(`data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', model, ...what })}\n\n`);
    for (const [i, word] of this.words.entries()) {
      if (gone) return;
      if (this.mode === 'breaks' && i === 3) return void answer.socket?.end(); // what was written arrives before it
      send({ choices: [{ index: 0, delta: { content: (i ? ' ' : '') + word }, finish_reason: null }] });
      await sleep(this.pause_ms);
    }
    send({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] });
    send({ choices: [], usage: { prompt_tokens: 4, completion_tokens: this.words.length, total_tokens: 4 + this.words.length } });
    answer.write('data: [DONE]\n\n');
    answer.end();
  }
  stop(): Promise<void> {
    return new Promise((done) => {
      this.server?.close(() => done());
      this.server?.closeAllConnections();
    });
  }
}
