"""Tools and formats through the openai package, its pydantic helpers and its streams.

usage: openai_tools.py MODEL_THAT_CALLS MODEL_OF_RANDOM_WEIGHTS; the server is OPENAI_BASE_URL
"""

import json
import sys
from typing import Literal

import openai
from pydantic import BaseModel, ConfigDict

caller, random = sys.argv[1:]
client = openai.OpenAI(max_retries=0)


class Weather(BaseModel):
    """Tells the weather."""

    model_config = ConfigDict(extra="forbid")
    city: str
    days: int


class Move(BaseModel):
    model_config = ConfigDict(extra="forbid")
    direction: Literal["north", "south"]
    quietly: bool


# the scripted model cannot be led by a grammar, which "strict" would be
weather = openai.pydantic_function_tool(Weather, name="get_weather")
del weather["function"]["strict"]
question = [{"role": "user", "content": "Weather?"}]

# a call as the model writes it, whole
completion = client.chat.completions.create(model=caller, messages=question, tools=[weather])
[choice] = completion.choices
assert choice.finish_reason == "tool_calls", choice
[call] = choice.message.tool_calls
assert Weather.model_validate_json(call.function.arguments) == Weather(city="São Paulo", days=3)
assert choice.message.content == "I look.", choice
assert choice.message.reasoning_content == "I need the weather.", choice

# and streamed, folded by the package
names, deltas = [], 0
with client.chat.completions.stream(model=caller, messages=question, tools=[weather]) as stream:
    for event in stream:
        if event.type == "tool_calls.function.arguments.delta":
            deltas += 1
        if event.type == "tool_calls.function.arguments.done":
            names.append(event.name)
            assert json.loads(event.arguments) == {"city": "São Paulo", "days": 3}, event
    final = stream.get_final_completion()
assert names == ["get_weather"] and deltas > 1, (names, deltas)
assert json.loads(final.choices[0].message.tool_calls[0].function.arguments)["days"] == 3

# the conversation goes on with the result
more = client.chat.completions.create(
    model=caller,
    messages=[
        *question,
        choice.message.model_dump(exclude_none=True, exclude={"parsed"}),
        {"role": "tool", "tool_call_id": call.id, "content": "22 degrees"},
    ],
    tools=[weather],
)
assert more.usage.prompt_tokens_details.cached_tokens > completion.usage.prompt_tokens, more.usage

# what random weights cannot do by themselves
parsed = client.chat.completions.parse(
    model=random, messages=question, response_format=Move, temperature=1, max_tokens=900
)
assert isinstance(parsed.choices[0].message.parsed, Move), parsed
move = openai.pydantic_function_tool(Move, name="move")
forced = client.chat.completions.parse(
    model=random,
    messages=question,
    tools=[move],
    tool_choice={"type": "function", "function": {"name": "move"}},
    temperature=1,
    max_tokens=900,
)
assert isinstance(forced.choices[0].message.tool_calls[0].function.parsed_arguments, Move), forced

try:
    client.chat.completions.create(
        model=caller,
        messages=question,
        tools=[weather],
        tool_choice={"type": "function", "function": {"name": "other"}},
    )
    raise AssertionError("an unknown tool was chosen")
except openai.BadRequestError as error:
    assert error.param == "tool_choice.function.name", error

print("done")
