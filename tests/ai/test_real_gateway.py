"""The gateway and llm jobs on a true server: what comes through is what a direct client gets, and a cancelled
request stops the true engine."""

import json

import ollama
import openai
import pytest
from ai_farm import call, eventually
from real_llm import RealLLM

HELLO = [{"role": "user", "content": "Name three colours."}]
ASKED = {"messages": HELLO, "max_tokens": 12, "temperature": 0, "seed": 1}


@pytest.fixture(scope="module")
def llm(farm):
    with RealLLM(embedding=True) as llm:
        farm.worker("a", f"llamacpp={llm.url}")
        farm.offers(llm.model)
        yield llm


def official(url):
    return openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)


def busy(llm):
    return [s for s in json.loads(call(llm.url + "/slots")[2]) if s["is_processing"]]


def test_chat_and_stream(farm, llm):
    direct = official(llm.url).chat.completions.create(model=llm.model, **ASKED)
    through = official(farm.url).chat.completions.create(model=llm.model, **ASKED)
    assert through.choices == direct.choices
    assert through.usage.completion_tokens == direct.usage.completion_tokens == 12
    asked = {**ASKED, "stream": True, "stream_options": {"include_usage": True}}
    chunks = list(official(farm.url).chat.completions.create(model=llm.model, **asked))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == direct.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == 12


def test_ollamas_dialect_is_told_for_llamacpp(farm, llm):
    options = {"num_predict": 12, "temperature": 0, "seed": 1}
    direct = official(llm.url).chat.completions.create(model=llm.model, **ASKED)
    client = ollama.Client(host=farm.url + "/ollama")
    whole = client.chat(model=llm.model, messages=HELLO, options=options)
    assert whole.message.content == direct.choices[0].message.content
    chunks = list(client.chat(model=llm.model, messages=HELLO, options=options, stream=True))
    assert "".join(c.message.content or "" for c in chunks) == direct.choices[0].message.content
    last = chunks[-1]
    assert (last.done, last.done_reason, last.eval_count) == (True, "length", 12)
    assert last.prompt_eval_count == direct.usage.prompt_tokens
    assert 0 < last.eval_duration <= last.total_duration
    told = client.generate(model=llm.model, prompt=HELLO[0]["content"], options=options)
    assert told.response == direct.choices[0].message.content, "a prompt goes through the model's template"
    vectors = official(llm.url).embeddings.create(model=llm.model, input="one").data[0].embedding
    assert list(client.embed(model=llm.model, input="one").embeddings[0]) == pytest.approx(vectors)
    with pytest.raises(ollama.ResponseError) as refused:
        client.chat(model=llm.model, messages=[{"role": "user", "content": "word " * 4000}])
    assert refused.value.status_code == 400


def test_embeddings(farm, llm):
    direct = official(llm.url).embeddings.create(model=llm.model, input=["one", "two"])
    through = official(farm.url).embeddings.create(model=llm.model, input=["one", "two"])
    assert [d.embedding for d in through.data] == [d.embedding for d in direct.data]
    assert len(through.data[0].embedding) == 576


def test_a_schema_is_kept_to(farm, llm):
    schema = {"type": "object", "properties": {"colour": {"type": "string", "maxLength": 8}}, "required": ["colour"]}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    reply = official(farm.url).chat.completions.create(
        model=llm.model, messages=HELLO, temperature=0, max_tokens=64, response_format=form
    )
    assert set(json.loads(reply.choices[0].message.content)) == {"colour"}


def test_a_client_that_leaves_stops_the_engine(farm, llm):
    stream = official(farm.url).chat.completions.create(
        model=llm.model, messages=HELLO, max_tokens=1500, temperature=0, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    assert len(busy(llm)) == 1
    stream.close()
    eventually(lambda: not busy(llm), what="the engine's rest")


def test_an_overflow_is_told_as_the_engine_tells_it(farm, llm):
    long = {"model": llm.model, "messages": [{"role": "user", "content": "word " * 4000}]}
    _, _, direct = call(llm.url + "/v1/chat/completions", long)
    status, _, through = call(farm.url + "/v1/chat/completions", long)
    assert (status, json.loads(through)["error"]["type"]) == (400, "exceed_context_size_error")
    assert through == direct


def test_a_job(farm, llm):
    options = {"max_tokens": 12, "temperature": 0, "seed": 1}
    row = farm.one(engine="llm", llm={"model": llm.model, "prompt": HELLO[0]["content"], "options": options})
    direct = official(llm.url).chat.completions.create(model=llm.model, **ASKED)
    value = row["value"]
    assert value["text"] == direct.choices[0].message.content
    assert (value["gen_tokens"], value["prompt_tokens"]) == (12, direct.usage.prompt_tokens)
    assert value["gen_tokens_per_s"] > 0


def test_a_cancelled_job_stops_the_engine(farm, llm):
    options = {"max_tokens": 1500, "temperature": 0, "ignore_eos": True}
    job = farm.submit(engine="llm", llm={"model": llm.model, "prompt": "count", "options": options})
    eventually(lambda: busy(llm), what="the engine's work")
    farm("cancel", job)
    eventually(lambda: not busy(llm), what="the engine's rest")
