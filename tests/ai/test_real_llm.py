"""The true server is one that the tests can count on."""

import openai
import pytest
from ai_farm import call
from real_llm import RealLLM


@pytest.fixture(scope="module")
def llm():
    with RealLLM() as llm:
        yield llm


def test_it_speaks_and_counts(llm):
    client = openai.OpenAI(base_url=llm.url + "/v1", api_key="none")
    asked = {"messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 8, "temperature": 0}
    whole = client.chat.completions.create(model=llm.model, **asked)
    assert whole.usage.completion_tokens == 8
    assert whole.choices[0].message.content
    chunks = list(client.chat.completions.create(model=llm.model, **asked, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert b"llamacpp:tokens_predicted_total 16\n" in call(llm.url + "/metrics")[2]


def test_it_names_its_model(llm):
    client = openai.OpenAI(base_url=llm.url + "/v1", api_key="none")
    assert [m.id for m in client.models.list()] == [llm.model]
