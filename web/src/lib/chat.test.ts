import { describe, expect, it } from 'vitest';
import { ApiError } from './api';
import { as_curl, as_python, by_choice, end, figures, messages, new_turn, notes, request_body, take, trouble, type Turn } from './chat';
import { blocks, inline } from './chat_text';

const settings = { model: 'm', system: ' be brief ', temperature: 0.2, max_tokens: null };
const piece = (content: string) => JSON.stringify({ choices: [{ delta: { content } }] });
const turn = (): Turn => new_turn(1, 'm', 'hi', 1000);

describe('what is sent', () => {
  it('has the system prompt and every turn that was answered', () => {
    const turns = [
      { ...turn(), answer: 'hello' },
      { ...turn(), question: 'lost', answer: '' },
      { ...turn(), question: 'now', answer: '' },
    ];
    expect(messages(settings, turns)).toEqual([
      { role: 'system', content: 'be brief' },
      { role: 'user', content: 'hi' },
      { role: 'assistant', content: 'hello' },
      { role: 'user', content: 'now' },
    ]);
  });
  it('leaves out what is not set', () => {
    const body = request_body(settings, []);
    expect(body).toMatchObject({ model: 'm', temperature: 0.2, stream: true, stream_options: { include_usage: true } });
    expect(body).not.toHaveProperty('max_tokens');
  });
});

describe('what comes back', () => {
  it('adds up pieces, thoughts, and the counts of the service', () => {
    const one = turn();
    take(one, JSON.stringify({ choices: [{ delta: { role: 'assistant', content: '' } }] }), 1100);
    expect(one.first_at).toBeNull();
    take(one, JSON.stringify({ choices: [{ delta: { reasoning_content: 'hm' } }] }), 1200);
    take(one, piece('a'), 1300);
    take(one, piece('b'), 1700);
    expect(take(one, JSON.stringify({ choices: [{ delta: {}, finish_reason: 'length' }] }), 1750)).toBe(false);
    take(one, JSON.stringify({ choices: [], usage: { prompt_tokens: 9, completion_tokens: 6 } }), 1760);
    expect(take(one, '[DONE]', 1770)).toBe(true);
    end(one, true);
    expect(one).toMatchObject({ answer: 'ab', thinking: 'hm', state: 'done', finish: 'length', prompt_tokens: 9 });
    expect(figures(one)).toEqual({ ttft_ms: 200, tokens: 6, counted: true, rate: 10, total_ms: 700 });
  });
  it('counts pieces where the service does not count tokens, and says so', () => {
    const one = turn();
    take(one, piece('a'), 1100);
    expect(figures(one)).toMatchObject({ tokens: 1, counted: false, rate: null });
    expect(figures(turn())).toEqual({ ttft_ms: null, tokens: null, counted: false, rate: null, total_ms: null });
  });
  it('tells an error within the stream, and keeps what had come', () => {
    const one = turn();
    take(one, piece('half'), 1100);
    expect(take(one, JSON.stringify({ error: { code: 'worker_lost', message: 'The worker w-1 was lost.' } }), 1200)).toBe(true);
    end(one, false);
    expect(one).toMatchObject({ state: 'failed', answer: 'half' });
    expect(one.trouble).toMatchObject({ code: 'worker_lost', text: 'The worker w-1 was lost.' });
    expect(one.trouble!.todo).toContain('is kept');
  });
  it('does not take a cut-off answer for a whole one', () => {
    const one = turn();
    take(one, piece('half'), 1100);
    end(one, false);
    expect(one.state).toBe('failed');
  });
  it('survives what is no JSON', () => {
    const one = turn();
    expect(take(one, '{', 1100)).toBe(true);
    expect(one.state).toBe('failed');
  });
});

it('says what to do about each refusal', () => {
  const busy = new ApiError(503, 'busy', 'All were busy.', { retry_after: '2' });
  expect(trouble(busy).todo).toBe('Ask again in 2 s.');
  expect(trouble(new ApiError(404, 'model_not_found', 'x')).services).toBe(true);
  expect(trouble(new ApiError(401, 'unauthenticated', 'x')).todo).toContain('token');
  expect(trouble(new ApiError(418, 'tea', 'x')).todo).toContain('Change');
  expect(trouble(new Error('odd')).text).toBe('odd');
});

it('says under an answer how it came about', () => {
  const one = { ...turn(), first_at: 1200, last_at: 1700, pieces: 6, tokens: 6, prompt_tokens: 9, finish: 'length', state: 'done' as const };
  const record = { waited_ms: 1500, tries: 3 } as Turn['record'];
  expect(notes({ ...one, record }).map((note) => `${note.b ?? ''} ${note.text}`.trim())).toEqual([
    '200 ms to the first token',
    '6 tokens after 9',
    '10.0 tokens/s',
    '1.5 s in the queue',
    '2 fail-overs',
    'cut at the most tokens',
  ]);
  expect(notes(turn())).toEqual([]);
});

it('names places as the gateway would choose them', () => {
  const place = (service: string, state: string, loaded: boolean, fit: string) =>
    ({ worker_id: 'w', service, kind: 'ollama', state, loaded, fit, good_context: 0, max_context: 0 });
  const order = by_choice([place('d', 'down', true, 'GOOD'), place('r', 'ready', false, 'RISK'), place('g', 'ready', false, 'GOOD'), place('l', 'ready', true, 'RISK')]);
  expect(order.map((one) => one.service)).toEqual(['l', 'g', 'r', 'd']);
});

it('writes the request for a shell and for Python, without the token', () => {
  const body = request_body(settings, [{ role: 'user', content: 'it\'s "so"\n' }]);
  const curl = as_curl('http://h:1/', body, true);
  expect(curl).toContain("'http://h:1/v1/chat/completions'");
  expect(curl).toContain(`it'\\''s \\"so\\"\\n`);
  expect(curl).toContain('$GRANGE_TOKEN');
  const python = as_python('http://h:1/', body, false);
  expect(python).toContain('base_url="http://h:1/v1"');
  expect(python).toContain('{"role": "user", "content": "it\'s \\"so\\"\\n"},');
  expect(python).not.toContain('max_tokens');
});

describe('text of an answer', () => {
  it('finds code, headings and lists', () => {
    expect(blocks('Say:\n\n```py\nx = 1\n```\n# Then\n1. one\n2. *two*\n\nEnd **now**')).toEqual([
      { kind: 'text', parts: [{ kind: 'text', text: 'Say:' }] },
      { kind: 'code', lang: 'py', text: 'x = 1' },
      { kind: 'head', parts: [{ kind: 'text', text: 'Then' }] },
      { kind: 'list', ordered: true, start: 1, items: [[{ kind: 'text', text: 'one' }], [{ kind: 'em', text: 'two' }]] },
      { kind: 'text', parts: [{ kind: 'text', text: 'End ' }, { kind: 'strong', text: 'now' }] },
    ]);
  });
  it('shows a fence that is not closed yet as code', () => {
    expect(blocks('```\nx')).toEqual([{ kind: 'code', lang: '', text: 'x' }]);
  });
  it('leaves stars and marks that are no markup', () => {
    expect(inline('2 * 3 * 4 and a_b')).toEqual([{ kind: 'text', text: '2 * 3 * 4 and a_b' }]);
    expect(inline('`a` b')).toEqual([{ kind: 'code', text: 'a' }, { kind: 'text', text: ' b' }]);
  });
});
