"""`grange race llm` with a true model, and races on doubles: the figures are the engines' own."""

import json
import re

import openai
import pytest
from ai_farm import call, eventually
from doubles import ComfyUIDouble, LlamaCppDouble, OllamaDouble, text
from real_llm import RealLLM

OLLAMA = "llama3.2:1b"


def counted(llm):
    """Tokens that the engine itself says it made."""
    return int(re.search(rb"llamacpp:tokens_predicted_total (\d+)", call(llm.url + "/metrics")[2])[1])


def last_line(done):
    return json.loads(done.stdout.strip().splitlines()[-1])


def race(farm, kind, *arguments, code=0, timeout=110):
    return last_line(farm("race", kind, *arguments, "--json", code=code, timeout=timeout))


def test_a_race_of_a_true_model(own_farm):
    """Its token counts equal the engine's own, and the text is what a direct client gets."""
    with RealLLM() as left, RealLLM() as right:
        own_farm.worker("left", f"llamacpp={left.url}", slots=2)
        own_farm.worker("right", f"llamacpp={right.url}", slots=2)
        prompt = "Name three colours."
        summary = race(
            own_farm,
            "llm",
            "--model",
            left.model,
            "--prompt",
            prompt,
            "--max-tokens",
            "16",
            "--num-ctx",
            "2048",
            "--temperature",
            "0",
            "--repeats",
            "3",
        )
        assert summary["status"] == "completed", summary
        assert set(summary["machines"]) == {"left", "right"}
        direct = openai.OpenAI(base_url=left.url + "/v1", api_key="none").chat.completions.create(
            model=left.model, messages=[{"role": "user", "content": prompt}], max_tokens=16, temperature=0
        )
        each = own_farm.ask(f"/api/runs/{summary['run_id']}")["summary"]["samples"]
        made = {"left": counted(left) - direct.usage.completion_tokens, "right": counted(right)}
        for name, machine in summary["machines"].items():
            samples = [s for s in each if s["machine"] == name]
            assert machine["engine"] == "llamacpp"
            assert (machine["status"], machine["ok"], machine["failed"]) == ("completed", 3, 0)
            assert sum(s["metrics"]["gen_tokens"] for s in samples) == made[name]
            assert machine["gen_tokens"] == direct.usage.completion_tokens
            assert machine["ttft_ms"] > 0
            assert machine["total_ms"] >= machine["ttft_ms"]
            assert machine["gen_tokens_per_s"] > 0
            assert machine["text"] == direct.choices[0].message.content
        folder = next(own_farm.folder.rglob(summary["run_id"]))
        assert {"metadata.json", "events.ndjson", "summary.json"} <= {p.name for p in folder.iterdir()}
        kept = json.loads((folder / "summary.json").read_text())
        assert kept["left"]["gen_tokens"] == summary["machines"]["left"]["gen_tokens"]


@pytest.fixture
def doubles():
    with OllamaDouble(tokens=10) as a, OllamaDouble(tokens=10) as b:
        yield a, b


def test_one_that_fails_does_not_hold_the_others(own_farm, doubles):
    a, b = doubles
    own_farm.worker("a", f"ollama={a.url}")
    own_farm.worker("b", f"ollama={b.url}")
    b.set(error_after=3, message="CUDA error: out of memory")
    summary = race(own_farm, "llm", "--model", OLLAMA, "--prompt", "x", "--repeats", "2", code=None)
    assert summary["machines"]["a"]["status"] == "completed"
    assert summary["machines"]["a"]["gen_tokens"] == 10
    assert summary["machines"]["a"]["text"] == text(10)
    assert summary["machines"]["b"]["status"] == "failed"
    assert summary["machines"]["b"]["error"] in ("oom", "out_of_memory")
    assert summary["status"] == "partial"


def test_a_killed_worker_ends_its_part(own_farm, doubles):
    a, b = doubles
    b.tokens, b.delay_s = 5000, 0.01
    own_farm.worker("a", f"ollama={a.url}")
    victim = own_farm.worker("b", f"ollama={b.url}")
    run = own_farm.ask("/api/runs", {"kind": "llm", "model": OLLAMA, "prompt": "x", "max_tokens": 4000})
    b.wait_for(lambda d: any(r.tokens > 3 for r in d.requests), what="the stream")
    victim.kill()
    victim.wait()
    b.wait_for(lambda d: any(r.cancelled for r in d.requests), what="the end of the work at the service")
    run_id = run["run_id"]
    done = eventually(
        lambda: (r := own_farm.ask(f"/api/runs/{run_id}")).get("status") not in ("running", None) and r,
        90,
        "the end of the run",
    )
    machines = done["summary"]["machines"]
    assert machines["a"]["status"] == "completed"
    assert machines["b"]["status"] == "lost"


def lane(farm, run_id, name):
    return farm.ask(f"/api/runs/{run_id}")["summary"]["machines"][name]


def ended(farm, run_id, seconds=90):
    return eventually(
        lambda: (r := farm.ask(f"/api/runs/{run_id}")).get("status") != "running" and r, seconds, "the end of the run"
    )


def test_a_service_that_dies_ends_its_lane_and_says_why(own_farm, doubles):
    """Not after the race's patience of ten minutes, and not by failing all repeats at once."""
    a, b = doubles
    b.delay_s = 0.05
    own_farm.worker("a", f"ollama={a.url}")
    own_farm.worker("b", f"box:ollama={b.url}")
    run_id = own_farm.ask("/api/runs", {"kind": "llm", "model": OLLAMA, "prompt": "x", "repeats": 20})["run_id"]
    b.wait_for(lambda d: sum(r.tokens for r in d.requests) > 15, what="the second request")
    b.stop()
    why = eventually(lambda: lane(own_farm, run_id, "b").get("waits"), 40, "the reason why the lane waits")
    assert "its box is down" in why
    done = ended(own_farm, run_id)
    machine = done["summary"]["machines"]["b"]
    assert (machine["status"], machine["error"]) == ("failed", "service_down")
    assert "its box is down" in machine["message"]
    assert machine["ok"] >= 1
    assert machine["failed"] < 10, "its repeats were burnt"
    assert done["summary"]["machines"]["a"]["ok"] == 20
    lines = call(f"{own_farm.url}/api/runs/{run_id}/events")[2].decode().splitlines()
    waits = [e["payload"] for e in map(json.loads, lines) if e["payload"].get("type") == "machine_waits"]
    assert any("its box is down" in w["why"] and w["ends_in_s"] == 30 for w in waits)
    assert "its box is down" in own_farm("runs", "show", run_id).stdout


def test_a_service_that_only_restarts_goes_on(own_farm, doubles):
    _, b = doubles
    b.delay_s = 0.05
    own_farm.worker("b", f"ollama={b.url}")
    run_id = own_farm.ask("/api/runs", {"kind": "llm", "model": OLLAMA, "prompt": "x", "repeats": 4})["run_id"]
    b.wait_for(lambda d: sum(r.tokens for r in d.requests) > 12, what="the second request")
    b.stop()
    eventually(lambda: "is down" in (lane(own_farm, run_id, "b").get("waits") or ""), 40, "the lane that waits")
    with OllamaDouble(tokens=10, port=int(b.url.rsplit(":", 1)[1])):
        machine = ended(own_farm, run_id)["summary"]["machines"]["b"]
    assert (machine["status"], machine["ok"], machine["failed"]) == ("completed", 4, 0), machine


def test_repeats_do_not_measure_the_prompt_cache(own_farm):
    with LlamaCppDouble(tokens=4) as llm:
        own_farm.worker("a", f"llamacpp={llm.url}")
        asked = ["--model", "smollm2-135m", "--prompt", "one two three four", "--num-ctx", "2048", "--repeats", "2"]
        cold = race(own_farm, "llm", *asked)
        assert "cache_note" not in cold["machines"]["a"]
        assert cold["machines"]["a"]["prompt_tokens_per_s"] > 0
        llm.set(cached_prompt=True)
        said = own_farm("race", "llm", *asked, "--cache")
        assert "from the service's cache" in said.stdout
        bodies = [r.json for r in llm.requests if r.path == "/v1/chat/completions"]
        assert [b.get("cache_prompt") for b in bodies] == [False, False, None, None]
        warm = own_farm.ask("/api/runs")[0]["run_id"]
        samples = own_farm.ask(f"/api/runs/{warm}")["summary"]["samples"]
        assert all(s["metrics"]["cached_tokens"] > 0 for s in samples)
        assert all("prompt_tokens_per_s" not in s["metrics"] for s in samples), "a rate of one token is none"


def test_ollama_s_cached_prompt_is_noted(own_farm, doubles):
    a, _ = doubles
    own_farm.worker("a", f"ollama={a.url}")
    a.set(cached_prompt=True)
    summary = race(own_farm, "llm", "--model", OLLAMA, "--prompt", "x", "--repeats", "2")
    assert "2 of 2 requests Ollama gave no figures" in summary["machines"]["a"]["cache_note"]


@pytest.mark.parametrize(
    ("op", "n", "figures"),
    [
        ("gemm", "128", ["gflops"]),
        ("memory", "32000000", ["gb_per_s_copy", "gb_per_s_triad"]),
        ("disk", "1e6", ["mb_per_s_write", "mb_per_s_read"]),
    ],
)
def test_what_a_machine_is_good_for(own_farm, op, n, figures):
    own_farm.worker("a")
    asked = ["--op", op, "--n", n, "--threads", "1", "--repeats", "2"]
    summary = race(own_farm, "compute", *asked)
    machine = summary["machines"]["a"]
    assert machine["status"] == "completed", machine
    assert all(machine[f] > 0 for f in figures)
    stats = machine["phases"][0]["stats"]
    assert set(figures) <= set(stats)
    assert not {"n", "threads"} & set(stats)
    shown = own_farm("runs", "show", summary["run_id"]).stdout
    assert "WHAT" in shown
    assert op in shown
    assert {"gemm": "GFLOP/S", "memory": "TRIAD GB/S", "disk": "WRITE MB/S"}[op] in shown
    assert op in own_farm("runs").stdout
    report = call(f"{own_farm.url}/api/runs/{summary['run_id']}/export?format=html")[2].decode()
    assert {"gemm": "GFLOP/s", "memory": "Triad GB/s", "disk": "Write MB/s"}[op] in report


def test_a_context_that_does_not_fit_is_answered_with_one_that_does(own_farm, doubles):
    a, _ = doubles
    a.sizes = {OLLAMA: 10**9}
    own_farm.worker("a", f"ollama={a.url}")
    done = own_farm("race", "llm", "--model", OLLAMA, "--prompt", "x", "--num-ctx", "100000000", code=1)
    better = int(re.search(r"--num-ctx (\d+) is the largest", done.stderr)[1])
    assert better > 0
    asked = ["--model", OLLAMA, "--prompt", "x", "--num-ctx", str(better), "--max-tokens", "2"]
    assert race(own_farm, "llm", *asked)["status"] == "completed"


def test_a_mock_is_labelled_and_never_ranked(own_farm, doubles):
    a, _ = doubles
    own_farm.worker("a", f"ollama={a.url}")
    own_farm.worker("bare")
    summary = race(own_farm, "llm", "--model", OLLAMA, "--prompt", "x", "--allow-mock", "--repeats", "2")
    assert summary["machines"]["a"]["engine"] == "ollama"
    mock = summary["machines"]["bare"]
    assert (mock["engine"], mock["mock_reason"]) == ("mock", "ollama_unreachable")
    assert "bare" not in summary["ranking"]["order"]


def test_repeats_and_concurrency_reach_the_service(own_farm, doubles):
    a, _ = doubles
    a.delay_s = 0.02
    own_farm.worker("a", f"ollama={a.url}", slots=4)
    race(own_farm, "llm", "--model", OLLAMA, "--prompt", "x", "--repeats", "8", "--concurrency", "4")
    assert sum(r.tokens for r in a.requests) == 80
    assert a.most_running == 4


def test_primes(own_farm):
    own_farm.worker("a")
    own_farm.worker("b")
    summary = race(
        own_farm, "compute", "--n", "1000000", "--algorithm", "segmented_sieve", "--threads", "1", "--repeats", "2"
    )
    for machine in summary["machines"].values():
        assert machine["primes_found"] == 78_498
        assert machine["wall_seconds"] > 0
        assert machine["correct"] is True


def test_pictures(own_farm):
    with ComfyUIDouble(checkpoints=["x.safetensors"]) as a, ComfyUIDouble(checkpoints=["x.safetensors"]) as b:
        own_farm.worker("a", f"comfyui={a.url}")
        own_farm.worker("b", f"comfyui={b.url}")
        summary = race(
            own_farm,
            "image",
            "--checkpoint",
            "x.safetensors",
            "--prompt",
            "a barn",
            "--steps",
            "3",
            "--width",
            "64",
            "--height",
            "64",
            "--repeats",
            "2",
        )
        for machine in summary["machines"].values():
            assert machine["status"] == "completed"
            assert machine["seconds_per_image"] > 0
        for double in (a, b):
            graphs = [r.json["prompt"] for r in double.requests if r.path.endswith("/prompt") and r.method == "POST"]
            seeds = [n["inputs"]["seed"] for g in graphs for n in g.values() if n["class_type"] == "KSampler"]
            assert len(seeds) == len(set(seeds)) == 2, "the same seed would come from ComfyUI's cache"


def test_a_run_is_kept_compared_exported_and_deleted(own_farm, doubles):
    a, b = doubles
    own_farm.worker("a", f"ollama={a.url}")
    own_farm.worker("b", f"ollama={b.url}")
    asked = ["--model", OLLAMA, "--prompt", "x", "--max-tokens", "5", "--repeats", "2"]
    first, second = (race(own_farm, "llm", *asked)["run_id"] for _ in range(2))
    assert {r["run_id"] for r in own_farm.ask("/api/runs")} == {first, second}
    report = call(f"{own_farm.url}/api/runs/{first}/export?format=html")[2].decode()
    assert "<html" in report
    assert "http://" not in report.replace("http://www.w3.org", "")
    lines = call(f"{own_farm.url}/api/runs/{first}/export?format=csv")[2].decode().splitlines()
    assert "ttft_ms" in lines[0]
    assert len(lines) >= 3
    events = [json.loads(e) for e in call(f"{own_farm.url}/api/runs/{first}/events")[2].splitlines()]
    kinds = {e["type"] for e in events}
    assert {"run_lifecycle", "job_start", "llm_token", "job_done"} <= kinds
    assert own_farm.ask(f"/api/runs/{first}/compare?with={second}")
    assert call(f"{own_farm.url}/api/runs/{first}", method="DELETE")[0] == 200
    assert {r["run_id"] for r in own_farm.ask("/api/runs")} == {second}
    eventually(lambda: not list(own_farm.folder.rglob(first)), what="the end of its folder")


def test_a_preflight_says_who_cannot(own_farm, doubles):
    a, _ = doubles
    own_farm.worker("a", f"ollama={a.url}")
    own_farm.worker("bare")
    checked = own_farm.ask("/api/runs/preflight", {"kind": "llm", "model": OLLAMA, "prompt": "x"})
    chosen = {m["machine"]: m["chosen"] for m in checked["machines"]}
    assert chosen == {"a": True, "bare": False}
