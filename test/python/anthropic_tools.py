"""The anthropic package's tool runner against a model that calls: `anthropic_tools.py MODEL_THAT_CALLS`."""

import sys

import anthropic

client = anthropic.Anthropic(max_retries=0, timeout=60)
turned = []


@anthropic.beta_tool
def turn(text: str) -> str:
    """Turns a text around.

    Args:
        text: What to turn.
    """
    turned.append(text)
    return text[::-1]


request = {
    "model": sys.argv[1],
    "max_tokens": 200,
    "messages": [{"role": "user", "content": "Turn abc around."}],
    "tools": [turn],
}

turns = list(client.beta.messages.tool_runner(**request))
assert [answer.stop_reason for answer in turns] == ["tool_use", "end_turn"], turns
assert [block.text for block in turns[-1].content] == ["It is cba now."], turns

words = ""
for stream in client.beta.messages.tool_runner(**request, stream=True):
    words += "".join(event.text for event in stream if event.type == "text")
assert words == "I turn it.It is cba now.", words
assert turned == ["abc", "abc"], turned
print("done")
