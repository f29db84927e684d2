"""The official clients accept what the doubles say, and each trap does what it is named for."""

import base64
import contextlib
import http.client
import http.server
import json
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import ollama
import openai
import pytest
import replicate
from websockets.sync.client import connect

from doubles import (
    ComfyUIDouble,
    DeadSocket,
    FileDouble,
    LlamaCppDouble,
    OllamaDouble,
    OpenAIDouble,
    ReplicateDouble,
    RunPodDouble,
    text,
)
from doubles.base import vector

HELLO = [{"role": "user", "content": "say something nice"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}


def call(url, body=None, method=None, headers=None, timeout=10):
    """Status, headers and body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def official(double, **options):
    return openai.OpenAI(base_url=double.url + "/v1", api_key=double.api_key or "none", **{"max_retries": 0, **options})


# ------------------------------------------------------------------------------------- the OpenAI contract, thrice


@pytest.fixture(params=[OpenAIDouble, LlamaCppDouble, OllamaDouble])
def wire(request):
    with request.param(models=["m:1"], tokens=6) as double:
        yield double


def test_chat_of_the_official_client(wire):
    reply = official(wire).chat.completions.create(model="m:1", messages=HELLO)
    assert reply.choices[0].message.content == text(6)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (3, 6)
    assert reply.choices[0].finish_reason == "stop"


def test_stream_of_the_official_client(wire):
    stream = official(wire).chat.completions.create(
        model="m:1", messages=HELLO, max_tokens=4, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text(4)
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].usage.completion_tokens == 4
    assert len({c.id for c in chunks}) == 1
    assert len({c.created for c in chunks}) == 1


def test_tools_come_in_pieces_that_make_an_object(wire):
    stream = official(wire).chat.completions.create(model="m:1", messages=HELLO, tools=[WEATHER], stream=True)
    calls = [c.choices[0].delta.tool_calls[0] for c in stream if c.choices and c.choices[0].delta.tool_calls]
    assert calls[0].function.name == "get_weather"
    assert json.loads("".join(c.function.arguments for c in calls)) == {"city": "barn", "days": 7}
    assert len(calls) > 1


def test_an_answer_to_a_tool_is_text(wire):
    told = [*HELLO, {"role": "tool", "tool_call_id": "call_1", "content": "sun"}]
    reply = official(wire).chat.completions.create(model="m:1", messages=told, tools=[WEATHER])
    assert reply.choices[0].message.content == text(6)


def test_a_schema_is_kept_to(wire):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    reply = official(wire).chat.completions.create(model="m:1", messages=HELLO, response_format=form)
    assert json.loads(reply.choices[0].message.content) == {"n": 7}


def test_completions_and_models(wire):
    client = official(wire)
    assert client.completions.create(model="m:1", prompt="a b", max_tokens=3).choices[0].text == text(3)
    pieces = client.completions.create(model="m:1", prompt="a b", stream=True)
    assert "".join(c.choices[0].text for c in pieces) == text(6)
    assert [m.id for m in client.models.list()] == ["m:1"]


def test_embeddings_are_base64_unless_asked_otherwise(wire):
    client = official(wire)
    reply = client.embeddings.create(model="m:1", input=["one", "two"])
    assert reply.data[1].embedding == vector("two")
    assert wire.requests[-1].json["encoding_format"] == "base64"
    assert client.embeddings.create(model="m:1", input="one", encoding_format="float").data[0].embedding == vector(
        "one"
    )


def test_an_error_in_the_stream_reaches_the_official_client(wire):
    wire.once(error_after=2, message="the runner is gone")
    said = []
    with pytest.raises(openai.APIError, match="the runner is gone"):
        for chunk in official(wire).chat.completions.create(model="m:1", messages=HELLO, stream=True):
            said.append(chunk.choices[0].delta.content or "")
    assert "".join(said) == text(2)
    assert wire.requests[-1].status == 200


def test_an_error_before_the_first_token_has_a_status(wire):
    wire.once(error_after=0)
    with pytest.raises(openai.InternalServerError):
        official(wire).chat.completions.create(model="m:1", messages=HELLO, stream=True)


def test_pings_and_odd_pieces_change_nothing(wire):
    wire.set(pings=2, piece=3)
    stream = official(wire).chat.completions.create(model="m:1", messages=HELLO, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in stream) == text(6)
    assert wire.requests[-1].sent.startswith(b": ping\n\n: ping\n\ndata: ")


def test_frames_can_come_together(wire):
    wire.set(merge=3)
    stream = official(wire).chat.completions.create(model="m:1", messages=HELLO, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in stream) == text(6)


def test_a_client_that_leaves_is_noticed(wire):
    wire.tokens, wire.delay_s = 1000, 0.02
    stream = official(wire).chat.completions.create(model="m:1", messages=HELLO, stream=True)
    next(iter(stream))
    assert wire.running == 1
    stream.close()
    seen = wire.requests[-1]
    wire.wait_for(lambda _: seen.cancelled and seen.ended)
    assert seen.tokens < 1000
    assert wire.running == 0


def test_a_cut_is_no_end(wire):
    wire.once(cut_after=2)
    stream = official(wire).chat.completions.create(model="m:1", messages=HELLO, stream=True)
    with pytest.raises(Exception) as raised:
        list(stream)
    assert not isinstance(raised.value, AssertionError)
    wire.wait_for(lambda d: d.requests[-1].ended)
    assert not wire.requests[-1].cancelled


def test_a_rate_limit_is_waited_for_by_the_official_client(wire):
    wire.once(status=429, retry_after=0.05)
    assert official(wire, max_retries=1).chat.completions.create(model="m:1", messages=HELLO).choices
    assert [r.status for r in wire.requests] == [429, 200]


def test_retry_after_as_a_date(wire):
    wire.once(status=429, retry_after="date:5")
    _, headers, _ = call(wire.url + "/v1/chat/completions", {"model": "m:1", "messages": HELLO})
    assert headers["Retry-After"].endswith("GMT")


def test_slow_first_token_and_stall(wire):
    wire.set(first_token_s=0.3)
    began = time.monotonic()
    stream = iter(official(wire).chat.completions.create(model="m:1", messages=HELLO, stream=True))
    next(stream)
    assert time.monotonic() - began >= 0.3
    wire.calm()
    wire.set(stall_after=1)
    with pytest.raises(openai.APITimeoutError):
        list(official(wire, timeout=0.5).chat.completions.create(model="m:1", messages=HELLO, stream=True))


def test_dead(wire):
    wire.set(dead=True)
    with pytest.raises(openai.APITimeoutError):
        official(wire, timeout=0.3).chat.completions.create(model="m:1", messages=HELLO)
    wire.wait_for(lambda d: d.requests[-1].cancelled)


# ----------------------------------------------------------------------------------------------------- each of them


def test_openai_errors():
    with OpenAIDouble(models=["gpt"], context=4, api_key="sk-right") as double:
        with pytest.raises(openai.NotFoundError) as missing:
            official(double).chat.completions.create(model="other", messages=HELLO)
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=double.url + "/v1", api_key="sk-wrong").models.list()
        with pytest.raises(openai.BadRequestError) as long:
            official(double).chat.completions.create(model="gpt", messages=[{"role": "user", "content": "a " * 9}])
        assert long.value.code == "context_length_exceeded"
        double.once(quota=True)
        with pytest.raises(openai.RateLimitError) as quota:
            official(double).chat.completions.create(model="gpt", messages=HELLO)
        assert quota.value.code == "insufficient_quota"
        double.once(loading=0.41)
        status, headers, body = call(
            double.url + "/v1/chat/completions", {}, headers={"Authorization": "Bearer sk-right"}
        )
        assert (status, headers["Retry-After"]) == (503, "1")
        assert json.loads(body)["loading"]["progress"] == 0.41
        assert official(double).images.generate(model="gpt", prompt="a barn", n=2).data[1].b64_json
        double.once(status=500, retry_after_ms=20)
        assert (
            call(double.url + "/v1/chat/completions", {}, headers={"Authorization": "Bearer sk-right"})[1][
                "retry-after-ms"
            ]
            == "20"
        )


def test_openai_usage_is_null_until_the_last_chunk():
    with OpenAIDouble(tokens=2, obfuscation=True) as double:
        asked = {"stream": True, "stream_options": {"include_usage": True}, "model": "gpt-4o-mini", "messages": HELLO}
        _, _, body = call(double.url + "/v1/chat/completions", asked)
        frames = [json.loads(f[6:]) for f in body.decode().split("\n\n") if f and f != "data: [DONE]"]
        assert [f["usage"] is None for f in frames] == [True] * 4 + [False]
        assert frames[-1]["choices"] == []
        assert "obfuscation" in frames[1]
        assert double.requests[-1].sent == body


def test_llamacpp():
    with LlamaCppDouble(models=["m"], tokens=5, context=20) as double:
        double.load()
        for path in ("/health", "/v1/models", "/props"):
            status, _, body = call(double.url + path)
            assert (status, json.loads(body)["error"]["type"]) == (503, "unavailable_error")
        double.load(False)
        assert call(double.url + "/health")[2] == b'{"status":"ok"}'
        status, _, body = call(
            double.url + "/v1/chat/completions", {"messages": [{"role": "user", "content": "a " * 30}]}
        )
        error = json.loads(body)["error"]
        assert (status, error["type"], error["n_prompt_tokens"], error["n_ctx"]) == (
            400,
            "exceed_context_size_error",
            30,
            20,
        )
        _, _, body = call(double.url + "/completion", {"prompt": "one two", "stream": True, "n_predict": 3})
        frames = [json.loads(f[6:]) for f in body.decode().strip().split("\n\n")]
        assert [f["stop"] for f in frames] == [False, False, False, True]
        assert frames[-1]["timings"]["predicted_n"] == frames[-1]["tokens_predicted"] == 3
        assert frames[-1]["stop_type"] == "limit"
        double.once(error_after=1, error_form="old")
        _, _, body = call(double.url + "/v1/chat/completions", {"messages": HELLO, "stream": True})
        assert body.decode().split("\n\n")[2].startswith('error: {"code":500')
        double.once(cached_prompt=True)
        _, _, body = call(double.url + "/v1/chat/completions", {"messages": HELLO})
        assert json.loads(body)["timings"]["prompt_n"] == 1
        double.set(omit_metrics=True)
        assert "timings" not in json.loads(call(double.url + "/v1/chat/completions", {"messages": HELLO})[2])
        double.set(embeddings_off=True)
        assert call(double.url + "/v1/embeddings", {"input": "x"})[0] == 501
        assert json.loads(call(double.url + "/nowhere")[2])["error"]["message"] == "File Not Found"
        assert len(json.loads(call(double.url + "/slots")[2])) == 2


def test_ollama_client():
    with OllamaDouble(models=["llama3.2:1b", "nomic"], tokens=5, pullable=["qwen:0.5b"]) as double:
        client = ollama.Client(host=double.url)
        reply = client.generate(model="llama3.2:1b", prompt="one two three")
        assert (reply.response, reply.done_reason) == (text(5), "stop")
        assert (reply.prompt_eval_count, reply.eval_count, reply.eval_duration) == (3, 5, 100_000_000)
        assert client.generate(model="llama3.2:1b", prompt="x", options={"num_predict": 2}).done_reason == "length"
        chunks = list(client.chat(model="llama3.2:1b", messages=HELLO, stream=True))
        assert "".join(c.message.content for c in chunks) == text(5)
        assert chunks[-1].done
        calls = client.chat(model="llama3.2:1b", messages=HELLO, tools=[WEATHER]).message.tool_calls
        assert calls[0].function.arguments == {"city": "barn", "days": 7}
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
        assert json.loads(client.generate(model="llama3.2:1b", prompt="x", format=schema).response) == {"n": 7}
        assert [m.model for m in client.list().models] == ["llama3.2:1b", "nomic:latest"]
        assert client.show("nomic").modelinfo["llama.block_count"] == 16
        assert [m.model for m in client.ps().models] == ["llama3.2:1b"]
        assert list(client.embed(model="nomic", input=["one"]).embeddings[0]) == vector("one")
        assert [p.status for p in client.pull("qwen:0.5b", stream=True)][-1] == "success"
        assert "qwen:0.5b" in [m.model for m in client.list().models]
        client.delete("qwen:0.5b")
        assert client.generate(model="nomic", keep_alive=0).done_reason == "unload"
        with pytest.raises(ollama.ResponseError, match="model 'none' not found") as missing:
            client.generate(model="none", prompt="x")
        assert missing.value.status_code == 404
        with pytest.raises(ollama.ResponseError, match="file does not exist"):
            list(client.pull("nothing:1b", stream=True))


def test_ollama_traps():
    with OllamaDouble(tokens=5) as double:
        client = ollama.Client(host=double.url)
        double.once(error_after=2, message="out of memory")
        said = []
        with pytest.raises(ollama.ResponseError, match="out of memory"):
            for chunk in client.generate(model="llama3.2:1b", prompt="x", stream=True):
                said.append(chunk.response)
        assert said == ["the", " farm"]
        assert double.requests[-1].status == 200
        double.once(error_after=0)
        with pytest.raises(ollama.ResponseError) as first:
            list(client.generate(model="llama3.2:1b", prompt="x", stream=True))
        assert first.value.status_code == 500
        double.once(cached_prompt=True)
        reply = client.generate(model="llama3.2:1b", prompt="x")
        assert reply.prompt_eval_count is None
        assert reply.eval_count == 5
        double.once(omit_metrics=True)
        assert client.generate(model="llama3.2:1b", prompt="x").eval_count is None
        double.once(status=503)
        with pytest.raises(ollama.ResponseError, match="server busy, please try again.  maximum pending"):
            client.generate(model="llama3.2:1b", prompt="x")
        double.once(end_after=2)
        assert not any(c.done for c in client.generate(model="llama3.2:1b", prompt="x", stream=True))
        double.once(no_tools=True)
        with pytest.raises(ollama.ResponseError, match="does not support tools"):
            client.chat(model="llama3.2:1b", messages=HELLO, tools=[WEATHER])


# --------------------------------------------------------------------------------------------------------- ComfyUI


def workflow(checkpoint="sd15.safetensors", seed=1, steps=3, batch=1):
    return {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "cfg": 8,
                "denoise": 1,
                "latent_image": ["5", 0],
                "model": ["4", 0],
                "negative": ["7", 0],
                "positive": ["6", 0],
                "sampler_name": "euler",
                "scheduler": "normal",
                "seed": seed,
                "steps": steps,
            },
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"batch_size": batch, "height": 32, "width": 48}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "a barn"}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "hands"}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}},
    }


class Comfy:
    """As the program's own page talks to it."""

    def __init__(self, double, flags=False):
        self.double, self.flags = double, flags

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        self.socket = self.stack.enter_context(connect(self.double.url.replace("http", "ws") + "/ws?clientId=me"))
        assert json.loads(self.socket.recv())["data"]["sid"] == "me"
        if self.flags:
            self.socket.send('{"type":"feature_flags","data":{"supports_preview_metadata":true}}')
        return self

    def __exit__(self, *_):
        self.stack.close()

    def submit(self, graph=None, **more):
        status, _, body = call(self.double.url + "/prompt", {"prompt": graph or workflow(), "client_id": "me", **more})
        return status, json.loads(body)

    def until(self, kind):
        """All messages up to the first of this kind."""
        out = []
        while True:
            message = self.socket.recv(10)
            out.append(message if isinstance(message, bytes) else json.loads(message))
            if not isinstance(message, bytes) and out[-1]["type"] == kind:
                return out

    def history(self, prompt_id):
        return json.loads(call(f"{self.double.url}/history/{prompt_id}")[2])


def test_comfyui_makes_pictures():
    with ComfyUIDouble() as double, Comfy(double, flags=True) as comfy:
        _, answer = comfy.submit(workflow(batch=2))
        heard = comfy.until("execution_success")
        kinds = [m["type"] for m in heard if isinstance(m, dict)]
        assert kinds.count("progress") == 3
        previews = [m for m in heard if isinstance(m, bytes)]
        event, length = struct.unpack(">II", previews[0][:8])
        assert event == 4
        assert json.loads(previews[0][8 : 8 + length])["prompt_id"] == answer["prompt_id"]
        assert previews[0][8 + length :].startswith(b"\x89PNG")
        while (last := comfy.until("executing")[-1])["data"]["node"] is not None:
            pass
        assert last["data"]["prompt_id"] == answer["prompt_id"]
        done = comfy.history(answer["prompt_id"])[answer["prompt_id"]]
        assert done["status"]["status_str"] == "success"
        assert len(done["outputs"]["9"]["images"]) == 2
        picture = call(double.url + "/view?type=output&filename=" + done["outputs"]["9"]["images"][0]["filename"])[2]
        assert struct.unpack(">II", picture[16:24]) == (48, 32)
        _, again = comfy.submit(workflow(batch=2))
        cached = [m for m in comfy.until("execution_success") if m["type"] == "execution_cached"]
        assert len(cached[0]["data"]["nodes"]) == 7
        assert comfy.history(again["prompt_id"])[again["prompt_id"]]["outputs"] == done["outputs"]


def test_comfyui_refuses():
    with ComfyUIDouble(checkpoints=["a.safetensors"]) as double, Comfy(double) as comfy:
        status, body = comfy.submit(workflow("x.safetensors"))
        assert status == 400
        assert body["error"]["details"] == "ckpt_name: 'x.safetensors' not in ['a.safetensors']"
        assert body["node_errors"]["4"]["errors"][0]["type"] == "value_not_in_list"
        double.checkpoints = [f"{i}.safetensors" for i in range(37)]
        assert "not in (list of length 37)" in comfy.submit(workflow("x"))[1]["error"]["details"]
        graph = {**workflow("0.safetensors"), "20": {"class_type": "Reactor", "inputs": {}}}
        assert comfy.submit(graph)[1]["error"]["type"] == "missing_node_type"
        double.set(old_missing_node=True)
        assert comfy.submit(graph)[1]["error"]["type"] == "invalid_prompt"
        assert comfy.submit({"4": workflow("0.safetensors")["4"]})[1]["error"]["type"] == "prompt_no_outputs"
        double.set(uuid_only=True)
        assert comfy.submit(workflow("0.safetensors"), prompt_id="mine")[1]["error"]["type"] == "invalid_prompt_id"
        assert call(double.url + "/view?filename=../x")[0] == 400
        assert json.loads(call(double.url + "/models/checkpoints")[2])[0] == "0.safetensors"
        assert call(double.url + "/models/none")[0] == 404


def test_comfyui_traps():
    with ComfyUIDouble(history_lag=2) as double, Comfy(double) as comfy:
        _, answer = comfy.submit()
        comfy.until("execution_success")
        double.wait_for(lambda d: d.current is None)
        assert comfy.history(answer["prompt_id"]) == {}
        assert comfy.history(answer["prompt_id"]) == {}
        assert answer["prompt_id"] in comfy.history(answer["prompt_id"])
        double.calm()
        double.once(oom=True)
        comfy.submit(workflow(seed=2))
        error = comfy.until("execution_error")[-1]["data"]
        assert error["exception_type"] == "torch.OutOfMemoryError"
        assert "ran out of memory on your GPU" in error["exception_message"]
        double.once(stall_at=2)
        _, stalled = comfy.submit(workflow(seed=3))
        comfy.until("progress")
        assert json.loads(call(double.url + "/queue")[2])["queue_running"][0][1] == stalled["prompt_id"]
        call(double.url + "/interrupt", {"prompt_id": "another"})
        call(double.url + "/interrupt", {"prompt_id": stalled["prompt_id"]})
        comfy.until("execution_interrupted")
        double.wait_for(lambda d: stalled["prompt_id"] in d.history)
        assert comfy.history(stalled["prompt_id"])[stalled["prompt_id"]]["status"]["status_str"] == "error"
        assert json.loads(call(f"{double.url}/api/jobs/{stalled['prompt_id']}")[2])["status"] == "cancelled"
        double.once(lose_ws_after=3)
        _, lost = comfy.submit(workflow(seed=4))
        with pytest.raises(Exception, match="received 1000|closed|no close frame"):
            comfy.until("execution_success")
        double.wait_for(lambda d: lost["prompt_id"] in d.history)
        double.once(empty_outputs=True)
        _, empty = comfy.submit(workflow(seed=5))
        double.wait_for(lambda d: empty["prompt_id"] in d.history)
        assert comfy.history(empty["prompt_id"])[empty["prompt_id"]]["outputs"] == {}
        double.set(no_jobs=True)
        assert call(double.url + "/api/jobs")[0] == 404


# ------------------------------------------------------------------------------------------------ remote services


@contextlib.contextmanager
def listener():
    """Takes POSTs, and yields its url and what came."""
    got = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", got
    finally:
        server.shutdown()
        server.server_close()


MODEL = "meta/meta-llama-3-8b-instruct"


def test_replicate_client():
    with ReplicateDouble(tokens=4) as double:
        client = replicate.Client(api_token="r8_test", base_url=double.url)
        client.poll_interval = 0.01
        assert "".join(client.run(MODEL, input={"prompt": "hi"})) == text(4)
        prediction = client.predictions.create(model=MODEL, input={"prompt": "hi"}, stream=True)
        prediction.wait()
        assert prediction.status == "succeeded"
        assert prediction.progress.percentage == 1.0
        assert prediction.metrics["predict_time"] == 0.5
        assert "".join(str(e) for e in prediction.stream()) == text(4)
        double.once(start_s=5)
        waiting = client.predictions.create(model=MODEL, input={"prompt": "hi"})
        waiting.cancel()
        waiting.reload()
        assert waiting.status == "canceled"
        double.once(fail="CUDA out of memory")
        with pytest.raises(replicate.exceptions.ModelError, match="CUDA out of memory"):
            list(client.run(MODEL, input={"prompt": "hi"}))
        with pytest.raises(replicate.exceptions.ReplicateError, match="valid authentication token"):
            replicate.Client(api_token="wrong", base_url=double.url).predictions.get("x")
        with pytest.raises(replicate.exceptions.ReplicateError, match="could not be found"):
            client.predictions.create(model="no/body", input={})


def test_replicate_webhooks_are_signed():
    with ReplicateDouble(tokens=2) as double, listener() as (hook, got):
        client = replicate.Client(api_token="r8_test", base_url=double.url)
        secret = client.webhooks.default.secret()
        events = {"webhook": hook, "webhook_events_filter": ["completed"]}
        for number, traps in enumerate([{}, {"bad_signature": True}, {"webhook_twice": True}]):
            double.once(**traps)
            client.predictions.create(model=MODEL, input={"prompt": "hi"}, **events)
            double.wait_for(lambda d, n=number: len(d.webhooks) > n)
        double.wait_for(lambda d: len(d.webhooks) == 4)

        def check(index):
            headers, body = got[index]
            replicate.webhook.Webhooks.validate(
                headers={k.lower(): v for k, v in headers.items()}, body=body.decode(), secret=secret
            )

        check(0)
        check(2)
        assert got[2][0]["webhook-id"] == got[3][0]["webhook-id"]
        with pytest.raises(replicate.webhook.InvalidSignatureError):
            check(1)
        assert json.loads(got[0][1])["status"] == "succeeded"


def test_replicate_waits_when_asked():
    with ReplicateDouble(tokens=2, limit_reads=1, retry_after="date:1") as double:
        key = {"Authorization": "Bearer r8_test"}
        status, headers, body = call(
            f"{double.url}/v1/models/{MODEL}/predictions", {"input": {}}, headers={**key, "Prefer": "wait=5"}
        )
        assert (status, headers["Preference-Applied"], json.loads(body)["status"]) == (201, "wait=5", "succeeded")
        url = json.loads(body)["urls"]["get"]
        limited, headers, _ = call(url, headers=key)
        assert limited == 429
        assert headers["Retry-After"].endswith("GMT")
        assert call(url, headers=key)[0] == 200


def test_runpod():
    with RunPodDouble(tokens=3, delay_s=0.01) as double:
        at, key = double.url + "/v2/endpoint1", {"Authorization": "Bearer rp_test"}

        def ask(path, body=None, method=None):
            status, _, answer = call(at + path, body, method, key)
            return status, json.loads(answer)

        done = ask("/runsync", {"input": {"prompt": "x"}})[1]
        assert (done["status"], done["output"]) == ("COMPLETED", ["the", " farm", " has"])
        assert done["executionTime"] == 3391
        assert ask("/runsync?wait=1", {"input": {}})[1]["status"] in ("IN_QUEUE", "IN_PROGRESS")
        job = ask("/run", {"input": {}})[1]
        assert job["status"] == "IN_QUEUE"
        said = []
        while len(said) < 3:
            said += [p["output"] for p in ask(f"/stream/{job['id']}")[1]]
        assert said == ["the", " farm", " has"]
        double.set(stream_form="object")
        assert ask(f"/stream/{job['id']}")[1]["stream"] == []
        double.once(queue_s=5)
        waiting = ask("/run", {"input": {}})[1]
        assert ask(f"/cancel/{waiting['id']}", {})[1]["status"] == "CANCELLED"
        double.once(fail="boom")
        assert ask("/runsync", {"input": {}})[1]["error"] == "boom"
        assert ask("/run", {})[0] == 400
        assert ask("/health")[1]["jobs"]["completed"] >= 1
        assert call(double.url + "/v2/endpoint1/health")[0] == 401
        double.set(limit_reads=1, retry_after=2)
        assert [ask(f"/status/{job['id']}")[0] for _ in range(2)] == [429, 200]
        double.set(forget=True)
        assert ask(f"/status/{job['id']}")[0] == 404


def test_files_in_parts():
    held = bytes(range(256)) * 40
    with FileDouble({"m.gguf": held}, redirect=True) as double:
        assert call(double.url + "/m.gguf")[2] == held
        double.calm()
        status, headers, part = call(double.url + "/m.gguf", headers={"Range": "bytes=100-"})
        assert (status, part) == (206, held[100:])
        assert headers["Content-Range"] == "bytes 100-10239/10240"
        changed = {"Range": "bytes=100-", "If-Range": '"another"'}
        assert call(double.url + "/m.gguf", headers=changed)[::2] == (200, held)
        double.once(cut_bytes=500)
        with pytest.raises(http.client.IncompleteRead) as cut:
            call(double.url + "/m.gguf")
        assert cut.value.partial == held[:500]
        assert call(double.url + "/other")[0] == 404


# ------------------------------------------------------------------------------------------------------- the rest


def test_a_dead_socket_takes_and_never_answers():
    with DeadSocket() as dead:
        with socket.create_connection(("127.0.0.1", dead.port), 2) as peer:
            peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
            peer.settimeout(0.2)
            with pytest.raises(TimeoutError):
                peer.recv(1)
        assert dead.connections == 1


def test_traps_by_the_control_route():
    with OllamaDouble() as double:
        assert call(double.url + "/__double", {"once": {"status": 503}})[0] == 200
        asked = {"model": "llama3.2:1b", "prompt": "x", "stream": False}
        assert [call(double.url + "/api/generate", asked)[0] for _ in range(2)] == [503, 200]
        assert call(double.url + "/__double", {"set": {"nonsense": 1}})[0] == 400
        shown = json.loads(call(double.url + "/__double")[2])
        assert [r["status"] for r in shown["requests"]] == [503, 200]
        with pytest.raises(TypeError):
            double.set(nonsense=1)


def test_one_by_itself():
    from farm_process import ROOT, end

    process = subprocess.Popen(
        [sys.executable, "-m", "doubles", "ollama"], stdout=subprocess.PIPE, text=True, cwd=ROOT / "tests"
    )
    try:
        assert call(process.stdout.readline().strip() + "/api/version")[0] == 200
    finally:
        end(process)
        process.stdout.close()


def test_base64_of_vectors():
    with OpenAIDouble() as double:
        asked = {"model": "gpt-4o-mini", "input": "x", "encoding_format": "base64"}
        raw = json.loads(call(double.url + "/v1/embeddings", asked)[2])["data"][0]["embedding"]
        assert list(struct.unpack("<8f", base64.b64decode(raw))) == vector("x")
