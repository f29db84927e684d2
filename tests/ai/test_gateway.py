"""The gateway: official clients through a server and its workers to services that misbehave on purpose."""

import http.client
import json
import urllib.parse

import httpx
import ollama
import openai
import pytest
from ai_farm import call, eventually
from doubles import LlamaCppDouble, OllamaDouble, OpenAIDouble, text
from doubles.base import vector

HELLO = [{"role": "user", "content": "say something nice"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
MODEL = {"ollama": "llama3.2:1b", "llamacpp": "smollm2-135m", "openai": "house-model"}


@pytest.fixture(scope="module")
def services(farm, doubles_of_module):
    """One worker with one service of each kind."""
    kinds = [OllamaDouble, LlamaCppDouble, OpenAIDouble]
    made = {k.kind: doubles_of_module.enter_context(k(models=[MODEL[k.kind]], tokens=12)) for k in kinds}
    farm.worker("a", ",".join(f"{kind}={double.url}" for kind, double in made.items()))
    farm.offers(*MODEL.values())
    return made


@pytest.fixture(params=["ollama", "llamacpp", "openai"])
def service(request, services):
    """Calm, and as if new."""
    double = services[request.param]
    double.calm()
    double.tokens, double.delay_s = 12, 0
    double.requests.clear()
    double.model = MODEL[request.param]
    return double


def official(farm, **options):
    return openai.OpenAI(base_url=farm.url + "/v1", api_key="none", **{"max_retries": 0, **options})


def post(farm, path, body):
    """A response that is not read yet."""
    url = urllib.parse.urlparse(farm.url)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    return connection.getresponse()


def chats(double):
    return [
        r
        for r in double.requests
        if r.method == "POST" and r.path in ("/v1/chat/completions", "/api/chat", "/api/generate")
    ]


# ------------------------------------------------------------------------------------------------ official clients


def test_chat(farm, service):
    reply = official(farm).chat.completions.create(model=service.model, messages=HELLO, max_tokens=5)
    assert reply.choices[0].message.content == text(5)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (3, 5)
    assert chats(service)[-1].json["messages"] == HELLO


def test_stream(farm, service):
    stream = official(farm).chat.completions.create(
        model=service.model, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text(12)
    assert chunks[-1].usage.completion_tokens == 12


def test_completions(farm, service):
    reply = official(farm).completions.create(model=service.model, prompt="one two", max_tokens=4)
    assert reply.choices[0].text == text(4)
    pieces = official(farm).completions.create(model=service.model, prompt="one two", stream=True)
    assert "".join(p.choices[0].text for p in pieces) == text(12)


def test_tools(farm, service):
    asked = {"model": service.model, "messages": HELLO, "tools": [WEATHER]}
    call_of = official(farm).chat.completions.create(**asked).choices[0].message.tool_calls[0]
    assert json.loads(call_of.function.arguments) == {"city": "barn"}
    stream = official(farm).chat.completions.create(**asked, stream=True)
    calls = [c.choices[0].delta.tool_calls[0] for c in stream if c.choices and c.choices[0].delta.tool_calls]
    assert json.loads("".join(c.function.arguments for c in calls)) == {"city": "barn"}


def test_embeddings_as_base64_and_as_numbers(farm, service):
    client = official(farm)
    assert client.embeddings.create(model=service.model, input=["one", "two"]).data[1].embedding == vector("two")
    plain = client.embeddings.create(model=service.model, input="one", encoding_format="float")
    assert plain.data[0].embedding == vector("one")
    service.set(floats_only=True)
    assert client.embeddings.create(model=service.model, input="one").data[0].embedding == vector("one")
    wanted = {"model": service.model, "input": "one", "encoding_format": "base64"}
    _, _, body = call(farm.url + "/v1/embeddings", wanted)
    assert isinstance(json.loads(body)["data"][0]["embedding"], str)


def test_models_are_listed_once(farm, services):
    assert sorted(m.id for m in official(farm).models.list()) == sorted(MODEL.values())


def test_ollama_client(farm, services):
    double = services["ollama"]
    double.calm()
    client = ollama.Client(host=farm.url + "/ollama")
    assert client.generate(model="llama3.2:1b", prompt="x").response == text(12)
    chunks = list(client.chat(model="llama3.2:1b", messages=HELLO, stream=True))
    assert "".join(c.message.content for c in chunks) == text(12)
    assert chunks[-1].eval_count == 12
    assert client.chat(model="llama3.2:1b", messages=HELLO, tools=[WEATHER]).message.tool_calls
    assert list(client.embed(model="llama3.2:1b", input="one").embeddings[0]) == vector("one")
    assert "llama3.2:1b" in [m.model for m in client.list().models]
    assert client.show("llama3.2:1b").modelinfo["llama.block_count"] == 16


# --------------------------------------------------------------------------------------------------------- verbatim


@pytest.mark.parametrize("traps", [{}, {"pings": 2}, {"piece": 5}, {"merge": 4}, {"error_after": 6}, {"end_after": 3}])
def test_bytes_are_those_of_the_service(farm, service, traps):
    service.set(**traps)
    asked = {"model": service.model, "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
    status, headers, body = call(farm.url + "/v1/chat/completions", asked)
    assert status == 200
    assert headers["Content-Type"].startswith("text/event-stream")
    assert body == chats(service)[-1].sent
    assert len(body) > 200


@pytest.mark.parametrize("traps", [{}, {"piece": 5}, {"merge": 4}, {"error_after": 6}, {"end_after": 3}])
@pytest.mark.parametrize("stream", [True, False])
def test_bytes_of_ollama_are_its_own(farm, services, traps, stream):
    double = services["ollama"]
    double.calm()
    if stream:
        double.set(**traps)
    asked = {"model": "llama3.2:1b", "messages": HELLO, "stream": stream}
    status, headers, body = call(farm.url + "/ollama/api/chat", asked)
    assert status == 200
    assert headers["Content-Type"].startswith("application/x-ndjson" if stream else "application/json")
    assert body == chats(double)[-1].sent


def test_the_old_form_of_an_error_passes(farm, services):
    double = services["llamacpp"]
    double.calm()
    double.once(error_after=2, error_form="old")
    _, _, body = call(
        farm.url + "/v1/chat/completions", {"model": MODEL["llamacpp"], "messages": HELLO, "stream": True}
    )
    assert body == chats(double)[-1].sent
    assert b'\n\nerror: {"code":500' in body


def test_a_long_answer_with_many_frames(farm, service):
    service.tokens = 5000
    asked = {"model": service.model, "messages": HELLO, "stream": True}
    _, _, body = call(farm.url + "/v1/chat/completions", asked)
    assert body == chats(service)[-1].sent
    assert len(body) > 500_000


def test_a_frame_is_not_held_back(farm, service):
    """What the service said before it fell silent is here; and it hears that nobody listens any more."""
    service.set(stall_after=3)
    answer = post(farm, "/v1/chat/completions", {"model": service.model, "messages": HELLO, "stream": True})
    got = b""
    while b'" has"' not in got:
        got += answer.read1(65536)
    seen = chats(service)[-1]
    service.wait_for(lambda _: seen.tokens == 3 and b'" has"' in seen.sent, what="the stall")
    while got != seen.sent:  # its last frame may come in two pieces
        assert seen.sent.startswith(got)
        got += answer.read1(65536)
    assert not seen.ended
    answer.close()
    service.wait_for(lambda _: seen.cancelled and seen.ended, what="the cancelling upstream")


# ------------------------------------------------------------------------------------------------ cancel, errors


def test_a_client_that_leaves_stops_the_work(farm, service):
    service.tokens, service.delay_s = 10_000, 0.01
    stream = official(farm).chat.completions.create(model=service.model, messages=HELLO, stream=True)
    next(iter(stream))
    stream.close()
    seen = chats(service)[-1]
    service.wait_for(lambda _: seen.cancelled, what="the cancelling upstream")
    assert seen.tokens < 10_000


def test_a_client_that_leaves_before_the_first_token(farm, service):
    service.set(dead=True)
    with pytest.raises(openai.APITimeoutError):
        official(farm, timeout=1).chat.completions.create(model=service.model, messages=HELLO)
    service.wait_for(lambda d: chats(d) and chats(d)[-1].cancelled, what="the cancelling upstream")


def test_an_error_in_the_stream_raises_in_the_client(farm, service):
    service.once(error_after=2, message="the runner is gone")
    said = []
    with pytest.raises(openai.APIError, match="the runner is gone"):
        for chunk in official(farm).chat.completions.create(model=service.model, messages=HELLO, stream=True):
            said.append(chunk.choices[0].delta.content or "")
    assert "".join(said) == text(2)


def test_a_cut_after_the_first_token_is_said(farm, service):
    service.once(cut_after=2)
    said = []
    with pytest.raises(openai.APIError):
        for chunk in official(farm).chat.completions.create(model=service.model, messages=HELLO, stream=True):
            said.append(chunk.choices[0].delta.content or "")
    assert "".join(said) == text(2)
    assert len(chats(service)) == 1


def test_a_cut_is_said_to_ollama_clients(farm, services):
    double = services["ollama"]
    double.calm()
    double.once(cut_after=2)
    with pytest.raises(ollama.ResponseError):
        list(ollama.Client(host=farm.url + "/ollama").chat(model="llama3.2:1b", messages=HELLO, stream=True))


def test_a_model_that_nobody_has(farm, services):
    with pytest.raises(openai.NotFoundError) as raised:
        official(farm).chat.completions.create(model="none-such", messages=HELLO)
    assert raised.value.code == "model_not_found"
    assert "llama3.2:1b" in str(raised.value) or "house-model" in str(raised.value)
    with pytest.raises(ollama.ResponseError) as said:
        ollama.Client(host=farm.url + "/ollama").generate(model="none-such", prompt="x")
    assert said.value.status_code == 404


def test_a_fault_of_the_request_is_told_as_the_service_tells_it(farm, services):
    double = services["llamacpp"]
    double.calm()
    long = [{"role": "user", "content": "word " * 5000}]
    status, _, body = call(farm.url + "/v1/chat/completions", {"model": MODEL["llamacpp"], "messages": long})
    assert status == 400
    assert json.loads(body)["error"]["type"] == "exceed_context_size_error"
    assert body == chats(double)[-1].sent


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"messages":[]}', b"\xff\xfe"])
def test_a_body_that_is_none(farm, services, body):
    status, _, said = call(farm.url + "/v1/chat/completions", body, "POST")
    assert status == 400
    assert json.loads(said)["error"]["message"]


def test_busy_is_waited_for(farm, service):
    """The client asked once, and need not know that the service was busy."""
    service.once(status=503, retry_after=1)
    reply = official(farm).chat.completions.create(model=service.model, messages=HELLO)
    assert reply.choices[0].message.content == text(12)
    assert [r.status for r in chats(service)] == [503, 200]


def test_busy_for_longer_than_the_client_waits(farm, service):
    service.set(status=429)
    asked = {"model": service.model, "messages": HELLO}
    status, headers, body = call(farm.url + "/v1/chat/completions", asked, headers={"Prefer": "wait=1"})
    assert status == 503
    assert int(headers["Retry-After"]) > 0
    assert json.loads(body)["error"]["message"]
    service.calm()
    eventually(lambda: call(farm.url + "/v1/chat/completions", asked)[0] == 200, what="an answer once it is free")


def test_a_cold_model_says_when_to_ask_again(farm, services):
    double = services["openai"]
    double.calm()
    double.set(loading=0.41)
    asked = {"model": MODEL["openai"], "messages": HELLO}
    status, headers, body = call(farm.url + "/v1/chat/completions", asked, headers={"Prefer": "wait=1"})
    assert (status, json.loads(body)["error"]["code"]) == (503, "model_loading")
    assert int(headers["Retry-After"]) > 0
    double.calm()
    eventually(lambda: call(farm.url + "/v1/chat/completions", asked)[0] == 200, what="an answer once it is loaded")


def test_headers_of_the_answer(farm, service):
    answer = post(farm, "/v1/chat/completions", {"model": service.model, "messages": HELLO, "stream": True})
    headers = answer.headers
    answer.read()
    assert headers["X-Accel-Buffering"] == "no"
    assert "no-cache" in headers["Cache-Control"]
    assert headers["x-request-id"]
    assert "Authorization" not in chats(service)[-1].headers


# -------------------------------------------------------------------------- Ollama's dialect for everybody's models


@pytest.mark.parametrize("kind", ["llamacpp", "openai"])
def test_ollama_client_reaches_models_of_other_services(farm, services, kind):
    double, model = services[kind], MODEL[kind]
    double.calm()
    double.tokens, double.delay_s = 12, 0
    client = ollama.Client(host=farm.url + "/ollama")
    chunks = list(client.chat(model=model, messages=HELLO, stream=True))
    assert "".join(c.message.content or "" for c in chunks) == text(12)
    assert (chunks[-1].done, chunks[-1].done_reason) == (True, "stop")
    assert (chunks[-1].prompt_eval_count, chunks[-1].eval_count) == (3, 12)
    assert chunks[-1].total_duration > 0
    whole = client.generate(model=model, prompt="one two", options={"num_predict": 4})
    assert whole.response == text(4)
    assert whole.eval_count == 4
    call_of = client.chat(model=model, messages=HELLO, tools=[WEATHER]).message.tool_calls[0]
    assert dict(call_of.function.arguments) == {"city": "barn"}
    assert list(client.embed(model=model, input=["one", "two"]).embeddings[1]) == vector("two")
    assert model in [m.model for m in client.list().models]
    assert client.show(model).capabilities == ["completion"]


@pytest.mark.parametrize("kind", ["llamacpp", "openai"])
def test_ollama_client_sees_errors_of_other_services(farm, services, kind):
    double, model = services[kind], MODEL[kind]
    double.calm()
    double.tokens, double.delay_s = 12, 0
    client = ollama.Client(host=farm.url + "/ollama")
    double.once(error_after=3)
    said = []
    with pytest.raises(ollama.ResponseError):
        for chunk in client.chat(model=model, messages=HELLO, stream=True):
            said.append(chunk.message.content or "")
    assert "".join(said) == text(3)
    with pytest.raises(ollama.ResponseError) as refused:
        client.chat(model="never-heard-of", messages=HELLO)
    assert refused.value.status_code == 404
    assert "never-heard-of" in refused.value.error


def test_an_error_of_ollama_has_openais_shape_at_v1(farm, services):
    double = services["ollama"]
    double.calm()
    status, _, body = call(farm.url + "/v1/nothing")
    assert status == 404
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    status, _, body = call(farm.url + "/ollama/")
    assert (status, body) == (200, b"Ollama is running")


# ------------------------------------------------------------------------------------------------ tokens with a name


def test_a_named_token_is_counted_apart_and_ends_with_its_streams(farm, service):
    name = f"app-{service.kind}"
    token = farm.ask("/api/tokens", {"name": name, "role": "models"})["token"]
    service.tokens, service.delay_s = 3000, 0.02
    mine = openai.OpenAI(base_url=farm.url + "/v1", api_key=token, max_retries=0)
    stream = mine.chat.completions.create(model=service.model, messages=HELLO, stream=True)
    assert next(iter(stream)) is not None
    farm.ask(f"/api/tokens/{name}", method="DELETE")
    with pytest.raises((httpx.HTTPError, openai.APIError)):
        for _ in stream:
            pass
    eventually(lambda: farm.ask("/api/gateway")["active"] == 0, what="the end of the stream")
    assert farm.ask("/api/gateway")["recent"][0]["principal"] == name
    with pytest.raises(openai.AuthenticationError, match="revoked"):
        mine.models.list()
