"""The double of llama.cpp's server says nothing that the true one does not, frame by frame."""

import json

import pytest
from ai_farm import call
from doubles import LlamaCppDouble
from real_llm import RealLLM

HELLO = [{"role": "user", "content": "Name a colour."}]
CONTEXT = 256


@pytest.fixture(scope="module")
def true():
    with RealLLM(context=CONTEXT) as llm:
        yield llm


@pytest.fixture(scope="module")
def double(true):
    with LlamaCppDouble(models=[true.model], tokens=4, context=CONTEXT) as double:
        yield double


def shape(value, at=""):
    """The set of places in it, each with what stands there."""
    if isinstance(value, dict):
        return set().union({at}, *(shape(v, f"{at}.{k}") for k, v in value.items()))
    if isinstance(value, list):
        return set().union({at}, *(shape(v, f"{at}[]") for v in value))
    kind = {bool: "bool", int: "number", float: "number", type(None): "null"}.get(type(value), "text")
    return {f"{at} {kind}"}


def frames(body):
    return [f for f in body.decode().split("\n\n") if f and not f.startswith(":")]


def shapes(body):
    return [shape(json.loads(f[6:])) if f != "data: [DONE]" else "end" for f in frames(body)]


def both(true, double, path, body=None):
    """Status, type and bytes, of the true one and of the double."""
    out = []
    for server in (true, double):
        status, headers, said = call(server.url + path, body)
        out.append((status, headers["Content-Type"].split(";")[0], said))
    assert out[0][:2] == out[1][:2]
    return out[0][2], out[1][2]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/completion"])
@pytest.mark.parametrize("usage", [True, False])
def test_streams(true, double, path, usage):
    asked = {
        "messages": HELLO,
        "prompt": "Name a colour.",
        "max_tokens": 4,
        "n_predict": 4,
        "temperature": 0,
        "stream": True,
    }
    if usage:
        asked["stream_options"] = {"include_usage": True}
    real, ours = (shapes(b) for b in both(true, double, path, asked))
    assert len(real) == len(ours), (real, ours)
    for number, (a, b) in enumerate(zip(real, ours, strict=True)):
        assert b == "end" if a == "end" else b <= a, f"frame {number}: {b - a}"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/completion"])
def test_whole_answers(true, double, path):
    asked = {"messages": HELLO, "prompt": "Name a colour.", "max_tokens": 4, "n_predict": 4, "temperature": 0}
    real, ours = (shape(json.loads(b)) for b in both(true, double, path, asked))
    assert ours <= real, ours - real


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/slots", "/props", "/nowhere"])
def test_what_it_says_of_itself(true, double, path):
    real, ours = (shape(json.loads(b)) for b in both(true, double, path))
    assert ours <= real, ours - real


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "word " * 900}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "word " * 900}], "stream": True}),
        ("/completion", {"prompt": "word " * 900}),
        ("/v1/embeddings", {"input": "x"}),
        ("/v1/chat/completions", {"model": "x"}),
    ],
)
def test_refusals(true, double, path, asked):
    double.set(embeddings_off=True)
    real, ours = (json.loads(b)["error"] for b in both(true, double, path, asked))
    assert shape(ours) <= shape(real)
    assert (ours["code"], ours["type"]) == (real["code"], real["type"])
