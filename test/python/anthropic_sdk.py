"""The anthropic package from PyPI against a running server: `anthropic_sdk.py MODEL`."""

import sys

import anthropic

client = anthropic.Anthropic(max_retries=0, timeout=60)
model = sys.argv[1]
question = {
    "model": model,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
}
ANSWER = "The capital of France is Paris."


def chat() -> None:
    answer = client.messages.create(**question, extra_body={"temperature": 0}, max_tokens=16)
    assert [block.text for block in answer.content] == [ANSWER], answer
    assert answer.stop_reason == "end_turn", answer
    beta = client.beta.messages.create(**question, extra_body={"temperature": 0}, max_tokens=16, betas=["zz-unknown-2030-01-01"])
    assert beta.content[0].text == ANSWER, beta


def stream() -> None:
    with client.messages.stream(**question, extra_body={"temperature": 0}, max_tokens=16) as events:
        text = "".join(events.text_stream)
        final = events.get_final_message()
    assert text == ANSWER, text
    assert final.content[0].text == ANSWER, final
    assert final.usage.output_tokens > 0, final


def count() -> None:
    counted = client.messages.count_tokens(**question).input_tokens
    used = client.messages.create(**question, max_tokens=1).usage
    assert counted == used.input_tokens + used.cache_creation_input_tokens + used.cache_read_input_tokens, used


def models() -> None:
    listed = list(client.models.list(limit=1))
    assert [entry.id for entry in listed] == [model], listed
    assert client.models.retrieve(model) == listed[0], listed
    assert listed[0].created_at.year > 2000, listed
    assert listed[0].max_input_tokens > 0, listed


def errors() -> None:
    try:
        client.messages.create(**question, max_tokens=0)
    except anthropic.BadRequestError as error:
        assert error.body["error"]["type"] == "invalid_request_error", error.body
        assert "max_tokens" in error.message, error.message
    else:
        raise AssertionError("max_tokens 0 was accepted")


for check in (chat, stream, count, models, errors):
    check()
    print(check.__name__)
