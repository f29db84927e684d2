"""Jobs of the engine llm: figures of the engine's own, and each way in which a service can fail."""

import json

import pytest
from ai_farm import eventually
from doubles import LlamaCppDouble, OllamaDouble, OpenAIDouble, text
from doubles.base import vector

OLLAMA, LLAMA, HOUSE = "llama3.2:1b", "smollm2-135m", "house-model"
MODEL = {"ollama": OLLAMA, "llamacpp": LLAMA, "openai": HOUSE}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
WORK = (
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/completion",
)


@pytest.fixture(scope="module")
def services(farm, doubles_of_module):
    kinds = [OllamaDouble, LlamaCppDouble, OpenAIDouble]
    made = {k.kind: doubles_of_module.enter_context(k(models=[MODEL[k.kind]], tokens=12)) for k in kinds}
    farm.worker("a", ",".join(f"{kind}={double.url}" for kind, double in made.items()))
    return made


@pytest.fixture(autouse=True)
def calm(services):
    for double in services.values():
        double.calm()
        double.tokens, double.delay_s = 12, 0
        double.requests.clear()


@pytest.fixture(params=["ollama", "llamacpp", "openai"])
def service(request, services):
    return services[request.param]


def llm(model, prompt="say {}", **more):
    options = more.pop("options", {})
    return {"engine": "llm", "llm": {"model": model, "prompt": prompt, "options": options, **more}}


def asked(double):
    return [r for r in double.requests if r.path in WORK]


# ---------------------------------------------------------------------------------------------------------- results


def test_a_job_of_prompts(farm, service):
    job = farm.submit(
        **llm(MODEL[service.kind], options={"max_tokens": 5, "temperature": 0}), args=["one", "two words"]
    )
    rows = farm.results(job)
    assert [r["status"] for r in rows] == ["completed", "completed"], rows
    values = [r["value"] for r in rows]
    assert [v["text"] for v in values] == [text(5)] * 2
    assert {v["engine"] for v in values} == {service.kind}
    assert [v["gen_tokens"] for v in values] == [5, 5]
    assert [v["prompt_tokens"] for v in values] == [2, 3]
    assert {v["finish_reason"] for v in values} == {"length"}
    assert all(v["ttft_ms"] > 0 and v["total_ms"] >= v["ttft_ms"] for v in values)
    said = sorted(json.dumps(r.json["messages"]) for r in asked(service))
    assert [json.loads(s)[-1]["content"] for s in said] == ["say one", "say two words"]


def test_by_rest(farm, service):
    job = farm.ask("/api/jobs", {**llm(MODEL[service.kind], "hello there"), "count": 1})
    (row,) = farm.results(str(job["id"]))
    assert row["value"]["text"] == text(12)
    assert row["value"]["finish_reason"] == "stop"


def test_rates_are_the_engines_own(farm, services):
    """The doubles say 20 ms for each token and 2 ms for each of the prompt, however fast they are."""
    for kind in ("ollama", "llamacpp"):
        value = farm.one(**llm(MODEL[kind], "one two three"))["value"]
        assert value["gen_tokens_per_s"] == pytest.approx(50, rel=0.01), kind
        assert value["prompt_tokens_per_s"] == pytest.approx(500, rel=0.01), kind


def test_load_time_is_ollamas_own(own_farm):
    with OllamaDouble(tokens=2) as double:
        own_farm.worker("fresh", f"ollama={double.url}")
        first = own_farm.one(**llm(OLLAMA, "x"))["value"]
        second = own_farm.one(**llm(OLLAMA, "x"))["value"]
    assert first["load_ms"] == pytest.approx(150)
    assert second["load_ms"] == pytest.approx(1)


def test_a_figure_that_was_not_given_is_null(farm, services):
    services["ollama"].set(omit_metrics=True)
    value = farm.one(**llm(OLLAMA, "x"))["value"]
    assert value["text"] == text(12)
    assert value["prompt_tokens"] is None
    assert value["prompt_tokens_per_s"] is None
    assert value["load_ms"] is None
    house = farm.one(**llm(HOUSE, "x"))["value"]
    assert house["gen_tokens"] == 12
    assert house["prompt_tokens_per_s"] is None
    assert house["load_ms"] is None


def test_a_cached_prompt_divides_by_nothing(farm, services):
    services["ollama"].set(cached_prompt=True)
    value = farm.one(**llm(OLLAMA, "x y z"))["value"]
    assert value["gen_tokens"] == 12
    assert value["prompt_tokens_per_s"] is None
    services["llamacpp"].set(cached_prompt=True)
    assert farm.one(**llm(LLAMA, "x y z"))["value"]["prompt_tokens"] == 3


def test_pings_odd_pieces_and_padding(farm, service):
    service.set(pings=3, piece=4)
    assert farm.one(**llm(MODEL[service.kind], "x"))["value"]["text"] == text(12)
    service.calm()
    service.set(merge=5)
    assert farm.one(**llm(MODEL[service.kind], "x"))["value"]["text"] == text(12)


def test_stop_schema_and_tools(farm, service):
    model = MODEL[service.kind]
    value = farm.one(**llm(model, "x", options={"stop": ["gate"]}))["value"]
    assert "gate" not in value["text"]
    assert value["finish_reason"] == "stop"
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert json.loads(farm.one(**llm(model, "x", options={"response_format": form}))["value"]["text"]) == {"n": 7}
    calls = farm.one(**llm(model, "x", options={"tools": [WEATHER]}))["value"]["tool_calls"]
    arguments = calls[0]["function"]["arguments"]
    assert calls[0]["function"]["name"] == "get_weather"
    assert (json.loads(arguments) if isinstance(arguments, str) else arguments) == {"city": "barn"}


def test_messages_as_the_argument(farm, service):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    row = farm.one(**llm(MODEL[service.kind], ""), args=[talk])
    assert row["value"]["text"] == text(12)
    assert asked(service)[-1].json["messages"] == talk


def test_embeddings(farm, service):
    row = farm.one(**llm(MODEL[service.kind], "", op="embed"), args=["one"])
    assert row["status"] == "completed", row
    assert row["value"]["embeddings"] == [vector("one")]


# ---------------------------------------------------------------------------------------------------------- failures


def test_an_error_in_a_stream_of_status_200(farm, service):
    service.set(error_after=3, message="CUDA error: out of memory")
    row = farm.one(**llm(MODEL[service.kind], "x"), retries=0)
    assert row["status"] == "failed"
    assert row["exception"] == "oom"
    assert "out of memory" in row["message"]


def test_both_forms_of_llamacpp(farm, services):
    for form in ("old", "new"):
        services["llamacpp"].set(error_after=3, message="something broke", error_form=form)
        row = farm.one(**llm(LLAMA, "x"), retries=0)
        assert (row["status"], row["exception"]) == ("failed", "unknown"), form
        assert "something broke" in row["message"]


@pytest.mark.parametrize("traps", [{"cut_after": 3}, {"end_after": 3}])
def test_half_an_answer_is_none(farm, service, traps):
    service.set(**traps)
    row = farm.one(**llm(MODEL[service.kind], "x"), retries=0)
    assert row["status"] == "failed", row


def test_a_failure_is_tried_again(farm, service):
    service.once(error_after=3)
    row = farm.one(**llm(MODEL[service.kind], "x"), retries=2)
    assert (row["status"], row["attempt"]) == ("completed", 2)
    assert row["value"]["text"] == text(12)


def test_busy_and_loading_are_tried_again(farm, services):
    services["ollama"].once(status=503)
    row = farm.one(**llm(OLLAMA, "x"), retries=2)
    assert row["status"] == "completed", row
    services["openai"].once(status=429, retry_after="date:1")
    assert farm.one(**llm(HOUSE, "x"), retries=2)["status"] == "completed"


def test_an_overflow_is_not_tried_again(farm, services):
    row = farm.one(**llm(LLAMA, "word " * 5000), retries=2)
    assert (row["status"], row["exception"]) == ("failed", "context_overflow")
    assert "4096" in row["message"]
    assert len(asked(services["llamacpp"])) == 1


def test_a_model_that_nobody_has_waits_and_says_why(farm, services):
    job = farm.submit(**llm("none:7b", "x"))
    said = farm("explain", job + "/0").stdout
    assert "none:7b" in said
    farm("cancel", job)


# ------------------------------------------------------------------------------------------------------------- mocks


def test_a_mock_only_when_it_is_allowed(farm, services):
    value = farm.one(**llm("none:7b", "x", allow_mock=True))["value"]
    assert value["engine"] == "mock"
    assert value["mock_reason"] == "missing_model"
    services["ollama"].set(error_after=3)
    mocked = farm.one(**llm(OLLAMA, "x", allow_mock=True, service="ollama"), retries=0)["value"]
    assert (mocked["engine"], mocked["mock_reason"]) == ("mock", "stream_error")
    services["ollama"].calm()
    assert farm.one(**llm(OLLAMA, "x", allow_mock=True))["value"]["engine"] == "ollama"


def test_a_mock_without_any_service(own_farm):
    own_farm.worker("bare")
    value = own_farm.one(**llm(OLLAMA, "x", allow_mock=True))["value"]
    assert (value["engine"], value["mock_reason"]) == ("mock", "ollama_unreachable")


# ------------------------------------------------------------------------------------------------- cancel, lost workers


def test_a_cancelled_task_stops_the_service(farm, service):
    service.tokens, service.delay_s = 10_000, 0.01
    job = farm.submit(**llm(MODEL[service.kind], "x"))
    service.wait_for(lambda d: asked(d) and asked(d)[-1].tokens > 2, what="the stream")
    farm("cancel", job)
    service.wait_for(lambda d: asked(d)[-1].cancelled, what="the cancelling upstream")


def test_a_time_limit_stops_the_service(farm, service):
    service.set(stall_after=2)
    row = farm.one(**llm(MODEL[service.kind], "x"), timeout="1s", retries=0)
    assert (row["status"], row["failure"]) == ("failed", "time_limit")
    service.wait_for(lambda d: asked(d)[-1].cancelled, what="the cancelling upstream")


def test_a_killed_worker_leaves_nothing_behind(own_farm):
    """Its stream ends at the service, and the task runs again where it can."""
    with OllamaDouble(tokens=2000, delay_s=0.01) as slow, OllamaDouble(tokens=3) as fast:
        victim = own_farm.worker("slow", f"ollama={slow.url}")
        job = own_farm.submit(**llm(OLLAMA, "x"), retries=2)
        slow.wait_for(lambda d: asked(d) and asked(d)[-1].tokens > 2, what="the stream")
        own_farm.worker("fast", f"ollama={fast.url}")
        victim.kill()
        victim.wait()
        slow.wait_for(lambda d: asked(d)[-1].cancelled, what="the end of the work at the service")
        (row,) = own_farm.results(job, 90)
        assert (row["status"], row["attempt"]) == ("completed", 2), row
        assert row["value"]["text"] == text(3)


def test_a_job_goes_to_the_worker_that_has_its_model(own_farm):
    with OllamaDouble(models=["a:1"]) as one, OllamaDouble(models=["b:1"]) as two:
        own_farm.worker("one", f"ollama={one.url}")
        own_farm.worker("two", f"ollama={two.url}")
        for model, double in (("a:1", one), ("b:1", two)):
            assert own_farm.one(**llm(model, "x"))["status"] == "completed"
            assert len(asked(double)) == 1


def test_a_service_that_comes_later_is_found(own_farm):
    double = OllamaDouble(tokens=3)
    with double:
        port = double.port
    own_farm.worker("a", f"ollama=http://127.0.0.1:{port}", ready=False)
    job = own_farm.submit(**llm(OLLAMA, "x"))
    eventually(lambda: own_farm.services("a", "down"), what="the service that is down")
    with OllamaDouble(tokens=3, port=port):
        (row,) = own_farm.results(job)
        assert row["status"] == "completed"
