"""The openai package from PyPI against a running server: `openai_sdk.py MODEL`."""

import sys

from openai import OpenAI

client = OpenAI(max_retries=0, timeout=60)
model = sys.argv[1]


def models() -> None:
    assert model in [entry.id for entry in client.models.list()]
    assert client.models.retrieve(model).id == model


def chat() -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    answer = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=16)
    assert answer.choices[0].message.content == "The capital of France is Paris.", answer
    stream = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=16, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == "The capital of France is Paris.", text


for check in (models, chat):
    check()
    print(check.__name__)
