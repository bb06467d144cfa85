"""The openai package's embeddings from PyPI against a running server: `openai_embeddings.py MODEL`."""

import sys

import openai

client = openai.OpenAI(max_retries=0, timeout=60)
model = sys.argv[1]
texts = ["first text", "second text"]

default = client.embeddings.create(model=model, input=texts)  # base64 on the wire
plain = client.embeddings.create(model=model, input=texts, encoding_format="float")
assert [d.index for d in default.data] == [0, 1], default
assert len(default.data[0].embedding) == 384, len(default.data[0].embedding)
for a, b in zip(default.data, plain.data):
    assert max(abs(x - y) for x, y in zip(a.embedding, b.embedding)) < 1e-9
assert default.usage.prompt_tokens == default.usage.total_tokens == 8, default.usage
short = client.embeddings.create(model=model, input="first text", dimensions=32, encoding_format="float")
assert len(short.data[0].embedding) == 32
assert abs(sum(x * x for x in short.data[0].embedding) - 1) < 1e-5
ids = client.embeddings.create(model=model, input=[[101, 2034, 3793, 102]], encoding_format="float")
assert max(abs(x - y) for x, y in zip(ids.data[0].embedding, plain.data[0].embedding)) < 1e-9
try:
    client.embeddings.create(model=model, input="")
except openai.BadRequestError as error:
    assert error.param == "input", error
else:
    raise AssertionError("an empty text was taken")
print("ok")
