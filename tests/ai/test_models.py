"""Models on machines: pulled, fetched, removed, by jobs that are sent to one worker."""

import hashlib
import json

import pytest
from ai_farm import eventually
from doubles import FileDouble, OllamaDouble

HELD = bytes(range(256)) * 8192  # 2 MiB
SHA = hashlib.sha256(HELD).hexdigest()


@pytest.fixture(scope="module")
def ollama(farm, doubles_of_module):
    double = doubles_of_module.enter_context(OllamaDouble(pullable=["qwen:0.5b"], tokens=3))
    farm.worker("a", f"ollama={double.url}")
    return double


@pytest.fixture(scope="module")
def files(ollama, doubles_of_module):
    return doubles_of_module.enter_context(FileDouble({"m.gguf": HELD}))


@pytest.fixture(autouse=True)
def calm(ollama, files):
    for double in (ollama, files):
        double.calm()
        double.requests.clear()


def models(farm, worker="a", **spec):
    job = {"engine": "models", "models": spec, "labels": {"grange.worker": farm.seen(worker)["id"]}}
    return {"retries": 0, **job}


def folder(farm, worker="a"):
    return farm.folder / f"worker-{worker}" / "models"


def kept(farm, worker="a"):
    at = folder(farm, worker)
    return sorted(p.name for p in at.rglob("*") if p.is_file()) if at.exists() else []


def test_a_pulled_model_is_offered_and_a_removed_one_is_not(farm, ollama):
    row = farm.one(**models(farm, op="pull", model="qwen:0.5b"))
    assert row["status"] == "completed", row
    assert row["value"]["bytes"] == 4_012_000
    assert "qwen:0.5b" in ollama.models
    farm.offers("qwen:0.5b")
    assert farm.one(**models(farm, op="remove", model="qwen:0.5b"))["status"] == "completed"
    assert "qwen:0.5b" not in ollama.models
    eventually(lambda: "qwen:0.5b" not in farm.models(), what="the end of the offer")


def test_a_pull_that_fails_in_its_stream(farm, ollama):
    ollama.set(pull_error_after=3)
    row = farm.one(**models(farm, op="pull", model="qwen:0.5b"))
    assert row["status"] == "failed", row
    assert "EOF" in row["message"]
    ollama.calm()
    row = farm.one(**models(farm, op="pull", model="nowhere:1b"))
    assert (row["status"], row["exception"]) == ("failed", "missing_model"), row


def test_a_cancelled_pull_ends_at_the_service(farm, ollama):
    ollama.set(pull_s=0.5)
    job = farm.submit(**models(farm, op="pull", model="qwen:0.5b"))
    ollama.wait_for(lambda d: d.asked("/api/pull"), what="the pull")
    farm("cancel", job)
    ollama.wait_for(lambda d: d.asked("/api/pull")[-1].cancelled, what="its end")


def test_a_file_is_fetched_and_checked(farm, files):
    spec = {"op": "fetch", "model": "m.gguf", "folder": "gguf", "url": files.url + "/m.gguf", "sha256": SHA}
    row = farm.one(**models(farm, **spec))
    assert row["status"] == "completed", row
    assert next(folder(farm).rglob("m.gguf")).read_bytes() == HELD
    again = farm.one(**models(farm, **spec))
    assert again["value"]["was_there"] is True
    assert farm.one(**models(farm, op="remove", model="m.gguf", folder="gguf"))["status"] == "completed"
    assert "m.gguf" not in kept(farm)


@pytest.mark.parametrize("traps", [{"cut_bytes": 1_000_000}, {"redirect": True}, {"no_range": True}])
def test_a_broken_download_goes_on(farm, files, traps):
    files.once(**traps)
    spec = {"op": "fetch", "model": "n.gguf", "folder": "gguf", "url": files.url + "/m.gguf", "sha256": SHA}
    row = farm.one(**models(farm, **spec))
    assert row["status"] == "completed", row
    assert next(folder(farm).rglob("n.gguf")).read_bytes() == HELD
    if "cut_bytes" in traps:
        assert files.requests[-1].status == 206
        assert sum(len(r.sent) for r in files.requests) < len(HELD) + 200_000
    farm.one(**models(farm, op="remove", model="n.gguf", folder="gguf"))


def test_a_wrong_checksum_leaves_nothing(farm, files):
    spec = {"op": "fetch", "model": "w.gguf", "folder": "gguf", "url": files.url + "/m.gguf", "sha256": "0" * 64}
    row = farm.one(**models(farm, **spec))
    assert row["status"] == "failed", row
    assert not [name for name in kept(farm) if name.startswith("w.gguf")]


def test_a_path_out_of_the_folder_is_refused(farm, files):
    job = json.dumps(models(farm, op="fetch", model="../../x", folder="gguf", url=files.url + "/m.gguf"))
    done = farm("submit", "-", stdin=job, code=None)
    if done.returncode == 0:
        (row,) = farm.results(done.stdout.strip())
        assert row["status"] == "failed", row
    assert not list(farm.folder.rglob("x"))


def test_a_killed_worker_in_the_middle_of_a_fetch(own_farm):
    """What it had is used by the next try."""
    with FileDouble({"m.gguf": HELD}, slow=20_000) as slow:
        worker = own_farm.worker("a")
        spec = {"op": "fetch", "model": "m.gguf", "folder": "gguf", "url": slow.url + "/m.gguf", "sha256": SHA}
        job = own_farm.submit(**{**models(own_farm, **spec), "retries": 2})
        slow.wait_for(lambda d: d.requests and len(d.requests[-1].sent) > 200_000, what="the fetch")
        worker.kill()
        worker.wait()
        slow.wait_for(lambda d: d.requests[-1].cancelled, what="the end of the connection")
        slow.calm()
        own_farm.worker("a")
        (row,) = own_farm.results(job, 90)
        assert row["status"] == "completed", row
        assert next(folder(own_farm).rglob("m.gguf")).read_bytes() == HELD


def test_reset_unloads_and_says_how_long_it_took(farm, ollama):
    ollama.loaded = ["llama3.2:1b"]
    row = farm.one(**models(farm, op="reset", service="ollama"))
    assert row["status"] == "completed", row
    assert row["value"]["ready_ms"] >= 0
    assert ollama.loaded == []


def test_by_the_command_line(farm, ollama):
    assert "llama3.2:1b" in farm("models", "ls").stdout
    farm("models", "sync", "qwen:0.5b", "--workers", "a", "--wait")
    farm.offers("qwen:0.5b")
    (row,) = json.loads(farm("models", "ls", "--json").stdout)
    assert "qwen:0.5b" in [m["name"] for s in row["services"] for m in s["models"]]
    assert "qwen:0.5b" in farm("models", "fit", "qwen:0.5b").stdout
    farm("models", "rm", "qwen:0.5b", "--workers", "a")
    eventually(lambda: "qwen:0.5b" not in ollama.models, what="the removing")


def test_fit_is_a_verdict_with_numbers(farm, ollama):
    """A model of 1.2B parameters in 4 bits is no burden; a context that needs terabytes is not sent there."""
    model = next(m for s in farm.seen("a")["services"] for m in s["models"] if m["name"] == "llama3.2:1b")
    assert model["fit"] in ("GOOD", "RISK")
    assert 0 < model["good_context"] <= 131_072
    far = {"model": "llama3.2:1b", "prompt": "x", "options": {"num_ctx": 100_000_000}}
    job = farm.submit(engine="llm", llm=far)
    assert "100000000" in farm("explain", job + "/0").stdout.replace(",", "").replace(" ", "")
    farm("cancel", job)


# ------------------------------------------------------------------------------------------------------- over REST


def test_sync_list_and_removal_over_rest(farm, ollama):
    (job,) = farm.ask("/models/sync", {"model": "qwen:0.5b", "workers": ["a"]})["jobs"]
    assert farm("wait", job["job_id"], "--timeout", "40").returncode == 0
    farm.offers("qwen:0.5b")
    (row,) = [m for m in farm.ask("/api/models")["models"] if m["name"] == "qwen:0.5b"]
    (place,) = row["where"]
    assert (place["worker_name"], place["service_kind"], place["connected"]) == ("a", "ollama", True)
    (gone,) = farm.ask("/api/models/qwen:0.5b", method="DELETE")["jobs"]
    assert farm("wait", gone["job_id"], "--timeout", "40").returncode == 0
    assert "qwen:0.5b" not in ollama.models


def test_a_file_by_its_source_over_rest(farm, files):
    (job,) = farm.ask("/api/models/sync", {"source": files.url + "/m.gguf", "sha256": SHA, "workers": ["a"]})["jobs"]
    assert farm("wait", job["job_id"], "--timeout", "40").returncode == 0
    assert "m.gguf" in kept(farm)


def test_reset_over_rest(farm, ollama):
    job = farm.ask(f"/api/agents/{farm.seen('a')['id']}/reset", {})["job_id"]
    (row,) = farm.results(job)
    assert row["status"] == "completed", row
    assert row["value"]["ready_ms"] >= 0
