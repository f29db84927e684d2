"""The gateway over several workers: failover, affinity, loss of a worker."""

import threading

import openai
import pytest
from ai_farm import Farm, call, eventually
from doubles import DeadSocket, LlamaCppDouble, OllamaDouble, text

MODEL = "llama3.2:1b"


def hello(word="nice"):
    return [{"role": "user", "content": f"say something {word}"}]


def chats(double):
    return [r for r in double.requests if r.path == "/v1/chat/completions"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two workers, each with the same model."""
    farm = Farm(tmp_path_factory.mktemp("pair"))
    with OllamaDouble(tokens=12) as a, OllamaDouble(tokens=12) as b:
        farm.worker("a", f"ollama={a.url}")
        farm.worker("b", f"ollama={b.url}")
        farm.offers(MODEL)
        yield farm, a, b
        farm.stop()


@pytest.fixture
def two(pair):
    farm, a, b = pair
    for double in (a, b):
        double.calm()
        double.tokens, double.delay_s = 12, 0
        double.requests.clear()
    return farm, a, b


def official(farm, **options):
    return openai.OpenAI(base_url=farm.url + "/v1", api_key="none", **{"max_retries": 0, **options})


def stream_text(farm, messages, said=None):
    said = [] if said is None else said
    for chunk in official(farm).chat.completions.create(model=MODEL, messages=messages, stream=True):
        if chunk.choices:
            said.append(chunk.choices[0].delta.content or "")
    return "".join(said)


def first_and_other(farm, a, b, messages):
    """Who answers this conversation, and who does not."""
    assert stream_text(farm, messages) == text(12)
    return (a, b) if chats(a) else (b, a)


@pytest.mark.parametrize("traps", [{"status": 500}, {"status": 503}, {"error_after": 0}, {"cut_after": 0}])
def test_before_the_first_token_another_answers(two, traps):
    farm, a, b = two
    messages = hello(f"about {traps}")
    first, other = first_and_other(farm, a, b, messages)
    first.once(**traps)
    assert stream_text(farm, messages) == text(12)
    assert (len(chats(first)), len(chats(other))) == (2, 1)


def test_after_the_first_token_nobody_else_does(two):
    farm, a, b = two
    messages = hello("and break")
    first, other = first_and_other(farm, a, b, messages)
    first.once(cut_after=3)
    said = []
    with pytest.raises(openai.APIError):
        stream_text(farm, messages, said)
    assert "".join(said) == text(3)
    assert chats(other) == []


def test_a_conversation_stays_where_it_was(two):
    farm, a, b = two
    messages = hello("for long")
    first, other = first_and_other(farm, a, b, messages)
    for turn in range(6):
        messages += [{"role": "assistant", "content": text(12)}, {"role": "user", "content": f"and {turn}"}]
        assert stream_text(farm, messages) == text(12)
    assert chats(other) == []
    assert len(chats(first)) == 7


def test_many_at_once_use_both(two):
    farm, a, b = two
    for double in (a, b):
        double.delay_s = 0.02
    said = []
    threads = [
        threading.Thread(target=lambda n=n: said.append(stream_text(farm, hello(f"number {n}")))) for n in range(24)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert said == [text(12)] * 24
    assert min(len(chats(a)), len(chats(b))) >= 4


def test_a_model_that_is_loaded_goes_first(own_farm):
    with OllamaDouble(loaded=[MODEL]) as warm, OllamaDouble() as cold:
        own_farm.worker("cold", f"ollama={cold.url}")
        own_farm.worker("warm", f"ollama={warm.url}")
        own_farm.offers(MODEL)
        models = eventually(
            lambda: [m for s in own_farm.seen("warm")["services"] for m in s["models"]], what="its models"
        )
        assert [m["loaded"] for m in models] == [True]
        for number in range(3):
            assert stream_text(own_farm, hello(f"warm {number}")) == text(20)
        assert chats(cold) == []


def test_a_killed_worker_in_the_middle_of_a_stream(own_farm):
    with OllamaDouble(tokens=1000, delay_s=0.02) as double:
        worker = own_farm.worker("a", f"ollama={double.url}")
        own_farm.offers(MODEL)
        stream = iter(official(own_farm).chat.completions.create(model=MODEL, messages=hello(), stream=True))
        next(stream)
        worker.kill()
        worker.wait()
        with pytest.raises(openai.APIError):
            list(stream)
        double.wait_for(lambda d: chats(d)[-1].cancelled, what="the end of the work at the service")


def test_a_worker_that_comes_is_waited_for(own_farm):
    """A model whose worker left a moment ago is not unknown."""
    with OllamaDouble(tokens=3) as double:
        worker = own_farm.worker("a", f"ollama={double.url}")
        own_farm.offers(MODEL)
        worker.terminate()
        worker.wait(30)
        eventually(lambda: own_farm.seen("a") is None, what="the leaving")
        said = []
        asking = threading.Thread(target=lambda: said.append(stream_text(own_farm, hello())))
        asking.start()
        own_farm.worker("a", f"ollama={double.url}")
        asking.join(30)
        assert said == [text(3)]


def test_a_dead_service_is_passed_over(own_farm):
    with DeadSocket() as dead, LlamaCppDouble(models=["tiny"], tokens=3) as alive:
        own_farm.worker("dead", f"llamacpp={dead.url}", ready=False)
        own_farm.worker("alive", f"llamacpp={alive.url}")
        own_farm.offers("tiny")
        status, _, _ = call(own_farm.url + "/v1/chat/completions", {"model": "tiny", "messages": hello()})
        assert status == 200


def test_the_server_stops_with_streams_open(own_farm):
    with OllamaDouble(tokens=1000, delay_s=0.02) as double:
        own_farm.worker("a", f"ollama={double.url}")
        own_farm.offers(MODEL)
        stream = iter(official(own_farm).chat.completions.create(model=MODEL, messages=hello(), stream=True))
        next(stream)
        own_farm.process.terminate()
        with pytest.raises(openai.APIError):
            list(stream)
        double.wait_for(lambda d: chats(d)[-1].cancelled, what="the end of the work at the service")
        assert own_farm.process.wait(30) == 0
