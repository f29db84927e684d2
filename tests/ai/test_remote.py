"""Jobs of the engine remote: services behind a key, their states, limits and webhooks."""

import pytest
from doubles import OpenAIDouble, ReplicateDouble, RunPodDouble, text

REPLICATE = "meta/meta-llama-3-8b-instruct"


@pytest.fixture(scope="module")
def services(farm, doubles_of_module):
    enter = doubles_of_module.enter_context
    openai = enter(OpenAIDouble(models=["gpt-4o-mini"], tokens=6, api_key="sk-test-secret"))
    replicate = enter(ReplicateDouble(models=[REPLICATE], tokens=6, api_key="r8_test_secret"))
    runpod = enter(RunPodDouble(models=["endpoint1"], tokens=6, api_key="rp_test_secret"))
    key_file = farm.folder / "runpod.key"
    key_file.write_text("rp_test_secret\n")
    farm.worker(
        "a",
        ready=False,
        OPENAI_API_KEY="sk-test-secret",
        OPENAI_BASE_URL=openai.url + "/v1",
        REPLICATE_API_TOKEN="r8_test_secret",
        REPLICATE_API_BASE_URL=replicate.url,
        RUNPOD_API_KEY_FILE=str(key_file),
        RUNPOD_ENDPOINT_BASE_URL=runpod.url,
    )
    return {"openai": openai, "replicate": replicate, "runpod": runpod}


@pytest.fixture(autouse=True)
def calm(services):
    for double in services.values():
        double.calm()
        double.tokens, double.delay_s = 6, 0
        double.requests.clear()


JOBS = {
    "openai": {
        "service": "openai",
        "op": "chat",
        "target": "gpt-4o-mini",
        "input": {"messages": [{"role": "user", "content": "say {}"}]},
    },
    "replicate": {"service": "replicate", "op": "predict", "target": REPLICATE, "input": {"prompt": "say {}"}},
    "runpod": {"service": "runpod", "op": "run", "target": "endpoint1", "input": {"prompt": "say {}"}},
}


@pytest.fixture(params=["openai", "replicate", "runpod"])
def kind(request, services):
    return request.param


def remote(kind, **more):
    return {"engine": "remote", "remote": {**JOBS[kind], **more}}


def said(value):
    """The text of a result, in whichever shape the service gave it."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(said(v) for v in value)
    for key in ("text", "output"):
        if value.get(key):
            return said(value[key])
    return ""


def work(double):
    return [r for r in double.requests if r.method == "POST" and not r.path.endswith("/cancel")]


@pytest.mark.parametrize("stream", [False, True])
def test_a_job(farm, services, kind, stream):
    row = farm.one(**remote(kind, stream=stream), args=["hello"])
    assert row["status"] == "completed", row
    assert said(row["value"]) == text(6)
    assert b"say hello" in work(services[kind])[-1].body


def test_runsync(farm, services):
    row = farm.one(**remote("runpod", op="runsync"), args=["hello"])
    assert row["status"] == "completed", row
    assert said(row["value"]) == text(6)


def test_a_rate_limit_is_honoured(farm, services, kind):
    services[kind].once(status=429, retry_after=1)
    row = farm.one(**remote(kind), args=["x"], retries=3)
    assert row["status"] == "completed", row
    assert [r.status for r in work(services[kind])][0] == 429


def test_reads_that_are_limited(farm, services):
    for kind in ("replicate", "runpod"):
        services[kind].set(limit_reads=2, retry_after=1)
        services[kind].delay_s = 0.05
        row = farm.one(**remote(kind), args=["x"], retries=0)
        assert row["status"] == "completed", row


def test_what_fails_there_fails_here(farm, services):
    for kind in ("replicate", "runpod"):
        services[kind].set(fail="CUDA out of memory")
        row = farm.one(**remote(kind), args=["x"], retries=0)
        assert row["status"] == "failed", row
        assert "CUDA out of memory" in row["message"]


def test_cancel_goes_there(farm, services):
    for kind, ended in (("replicate", "canceled"), ("runpod", "CANCELLED")):
        double = services[kind]
        double.tokens, double.delay_s = 10_000, 0.02
        job = farm.submit(**remote(kind), args=["x"])
        double.wait_for(lambda d: work(d), what="the request")
        farm("cancel", job)
        held = double.predictions if kind == "replicate" else double.jobs
        double.wait_for(lambda _, h=held, e=ended: list(h.values())[-1]["status"] == e, what="its end there")


def test_keys_are_nowhere(farm, services):
    """Not in what the server keeps or shows, and not in a log."""
    for kind in JOBS:
        farm.one(**remote(kind), args=["x"])
    secrets = (b"sk-test-secret", b"r8_test_secret", b"rp_test_secret")
    shown = farm("workers", "--json").stdout.encode()
    assert not any(s in shown for s in secrets)
    for path in farm.folder.rglob("*"):
        if path.is_file() and path.name != "runpod.key":
            held = path.read_bytes()
            assert not any(s in held for s in secrets), path


def test_a_key_that_is_wrong_is_told_of(own_farm):
    with OpenAIDouble(models=["gpt-4o-mini"], api_key="right") as double:
        own_farm.worker("a", ready=False, OPENAI_API_KEY="sk-mistaken", OPENAI_BASE_URL=double.url)
        row = own_farm.one(**remote("openai"), args=["x"], retries=0, finish_in="20s")
        assert row["status"] == "failed", row
        assert "key" in row["message"]
        assert "sk-mistaken" not in row["message"]
