"""`grange models`: what people see of the models of their machines, and what they do with them."""

import hashlib
import json

import pytest
from ai_farm import eventually
from doubles import FileDouble, LlamaCppDouble, OllamaDouble

HELD = bytes(range(256)) * 1024
SHA = hashlib.sha256(HELD).hexdigest()


@pytest.fixture(scope="module")
def ollamas(farm, doubles_of_module):
    made = {}
    for worker in "ab":
        made[worker] = doubles_of_module.enter_context(
            OllamaDouble(models=["llama3.2:1b", f"only-{worker}:latest"], pullable=["qwen:0.5b"], tokens=3)
        )
        farm.worker(worker, f"box:ollama={made[worker].url}")
    return made


def table(text):
    return [line.split() for line in text.splitlines()]


def test_ls_shows_each_worker_service_and_model(farm, ollamas):
    rows = table(farm("models", "ls").stdout)
    assert rows[0][:4] == ["WORKER", "SERVICE", "STATE", "MODEL"]
    seen = {(r[0], r[1], r[2], r[3]) for r in rows[1:]}
    assert {("a", "box", "ready", "only-a:latest"), ("b", "box", "ready", "llama3.2:1b")} <= seen
    assert farm("models").stdout.splitlines()[0] == farm("models", "ls").stdout.splitlines()[0]
    (one,) = json.loads(farm("models", "ls", "--worker", "a", "--json").stdout)
    assert one["name"] == "a"
    assert {m["name"] for s in one["services"] for m in s["models"]} == {"llama3.2:1b", "only-a:latest"}
    assert farm("models", "ls", "--worker", "nobody", code=4).stderr


def test_sync_goes_to_the_chosen_workers_and_rm_undoes_it(farm, ollamas):
    out = json.loads(farm("models", "sync", "qwen:0.5b", "--workers", "a", "--wait", "--json").stdout)
    assert [(o["worker_name"], o["status"]) for o in out] == [("a", "completed")]
    assert "qwen:0.5b" in ollamas["a"].models
    assert "qwen:0.5b" not in ollamas["b"].models
    said = farm("models", "sync", "qwen:0.5b", "--wait").stdout
    assert said.count("is there") == 2
    out = json.loads(farm("models", "rm", "qwen:0.5b", "--workers", "a,b", "--json").stdout)
    assert [o["status"] for o in out] == ["completed", "completed"]
    assert not any("qwen:0.5b" in o.models for o in ollamas.values())


def test_a_sync_that_fails_says_why(farm, ollamas):
    done = farm("models", "sync", "nowhere:1b", "--workers", "a", "--wait", code=1)
    assert "nowhere:1b" in done.stdout
    assert "failed" in done.stdout


def test_a_file_comes_once(farm, ollamas):
    with FileDouble({"m.gguf": HELD}) as files:
        order = ["models", "sync", "--url", files.url + "/m.gguf", "--sha256", SHA, "--workers", "b", "--wait"]
        assert "m.gguf is there" in farm(*order).stdout
        assert "was there" in farm(*order).stdout
    held = farm.folder / "worker-b" / "models" / "gguf" / "m.gguf"
    assert held.read_bytes() == HELD
    eventually(lambda: "gguf/m.gguf" in farm("models", "ls", "--worker", "b").stdout, what="the file in the list")
    assert "was removed" in farm("models", "rm", "gguf/m.gguf", "--workers", "b").stdout
    assert not held.exists()


def test_fit_tells_a_verdict_with_its_numbers(farm, ollamas):
    rows = table(farm("models", "fit", "llama3.2:1b").stdout)
    assert rows[0][:4] == ["WORKER", "SERVICE", "MODEL", "FIT"]
    assert {r[0] for r in rows[1:3]} == {"a", "b"}
    assert all(r[3] in ("GOOD", "RISK", "FAIL", "UNKNOWN") for r in rows[1:3])
    found = json.loads(farm("models", "fit", "only-a", "--context", "99999999", "--json").stdout)
    assert [row["worker_name"] for row in found] == ["a"]
    assert found[0]["context"] == 99999999
    assert found[0]["fit"] in ("FAIL", "UNKNOWN")
    assert "models sync" in farm("models", "fit", "nowhere", code=4).stderr


def test_ls_shows_how_much_context_can_be_used(farm, ollamas):
    head, *rows = farm("models", "ls", "--worker", "a").stdout.splitlines()
    assert head.index("TRAINED") < head.index("USABLE")
    row = next(r for r in rows if "llama3.2:1b" in r)
    (one,) = json.loads(farm("models", "ls", "--worker", "a", "--json").stdout)
    model = next(m for s in one["services"] for m in s["models"] if m["name"] == "llama3.2:1b")
    assert f"{model['context']:,}" in row
    assert f"{model['good_context'] or model['max_context']:,}" in row


def test_what_is_not_known_of_a_fit_is_a_question(farm, ollamas):
    with LlamaCppDouble() as llm:
        farm.worker("loaded", f"llamacpp={llm.url}")
        (found,) = json.loads(farm("models", "fit", llm.models[0], "--workers", "loaded", "--json").stdout)
        assert found["free"] is None
        assert found["overhead"] is None
        row = farm("models", "fit", llm.models[0], "--workers", "loaded").stdout.splitlines()[1]
        assert "?" in row
        assert " 0 " not in row


def test_a_slip_in_a_worker_s_name_is_answered_with_the_names(farm, ollamas):
    said = farm("models", "ls", "--worker", "aa", code=4).stderr
    assert 'Did you mean "a"?' in said
    assert "Connected are: a, b" in said


def test_reset(farm, ollamas):
    ollamas["a"].loaded = ["llama3.2:1b"]
    (out,) = json.loads(farm("models", "reset", "--workers", "a", "--json").stdout)
    assert out["status"] == "completed"
    assert out["result"]["ready_ms"] >= 0
    assert ollamas["a"].loaded == []
    said = farm("models", "reset", "--workers", "b", "--service", "box").stdout
    assert "ready again after" in said
    assert "had nothing to unload" in said
    ollamas["b"].loaded = ["llama3.2:1b"]
    assert "unloaded llama3.2:1b, ready after" in farm("models", "reset", "--workers", "b").stdout


def test_what_cannot_be_meant_is_refused(farm, ollamas):
    for words in (
        ["sync"],
        ["sync", "a", "b", "--url", "http://127.0.0.1:1/x"],
        ["sync", "a", "--folder", "x"],
    ):
        assert farm("models", *words, code=2).stderr, words
    for service in ("nonsense", "ollama=ftp://x", "openai=http://me:pass@host"):
        done = farm("worker", "--service", service, code=2)
        assert "pass@" not in done.stderr
