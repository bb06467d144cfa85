"""What tokenizers and transformers make of texts and conversations.

    python scripts/golden/text.py <SmolLM2-135M-Instruct.Q4_1.gguf>

Writes test/fixtures/text/; README.md tells the format.
"""

import datetime
import json
import random
import sys
from pathlib import Path

from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / "test" / "fixtures" / "text"
PASSAGES = sorted((HERE / "passages").glob("*.txt"))

TEXTS = [
    "a",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    "\r\n",
    " a",
    "a ",
    " a ",
    "\u00a0",
    "\u3000x",
    "\u0085",
    "a\u0085b",
    "\ufeffx",
    "x\ufeff",
    "\u200b",
    "a\u2028b\u2029c",
    "\x00",
    "a\x00b",
    "\x7f",
    "\x1b[31mred\x1b[0m",
    "Hello, world!",
    "HELLO",
    "hello hello  hello",
    "don't can't I'll we've they're I'd it's",
    "DON'T",
    "'s's",
    "o'clock",
    "1",
    "12",
    "123",
    "1234567890",
    " 12",
    "a  12",
    "x  5\n\n1. y",
    "3.14159",
    "-1e-7",
    "0x1F",
    "1,000,000",
    "12:34:56",
    "2024-02-29",
    "²",
    "x²+y³",
    "½ cup",
    "Ⅷ",
    "٣٤٥",
    "四十二",
    "①②③",
    "१२३",
    "v1.2.3-rc.4",
    "IPv6 ::1",
    "50%",
    "$9.99",
    "€5",
    "№7",
    "naïve café",
    "cafe\u0301",
    "ÅNGSTRÖM Å",
    "ﬁ ﬂ",
    "straße STRASSE",
    "İstanbul ı",
    "Zürich",
    "señor",
    "Łódź",
    "œuvre",
    "Привет, мир",
    "Γειά σου Κόσμε",
    "שלום עולם",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "你好，世界",
    "こんにちは世界",
    "안녕하세요 세계",
    "ᎣᏏᏲ",
    "𝕳𝖊𝖑𝖑𝖔",
    "𐍈𐌰",
    "🙂",
    "🙂🙂",
    "👩‍👩‍👧",
    "🇫🇷🇩🇪",
    "👍🏽",
    "❤️",
    "a🙂b",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "e\u0301\u0302\u0303",
    "\u0301",
    "ก็",
    "क्षि",
    "if (a<b) { return a[0]; } // ok",
    "def f(x):\n    return x ** 2\n",
    "\tindent\n\t\tmore",
    "<html><b>x</b></html>",
    '{"a": [1, 2, {"b": null}]}',
    "SELECT * FROM t WHERE id=1;",
    "foo_bar fooBar FooBar FOO_BAR",
    "a.b.c/d\\e",
    "https://example.org/a?b=c&d=e#f",
    "me@example.org",
    "~/.config",
    "C:\\Windows",
    "!!!",
    "...",
    "…",
    "—–-",
    "“quoted” ‘text’",
    "((()))",
    "=====",
    "-----\n-----",
    "***bold***",
    "`code`",
    "# Title\n\n- a\n- b",
    "| a | b |",
    "a" * 300,
    "ab" * 200,
    " " * 50,
    "\n" * 20,
    "word " * 60,
    "supercalifragilisticexpialidocious",
    "antidisestablishmentarianism",
    "qwertyuiopasdfghjklzxcvbnm",
    "xXxXxXx",
    "The the THE tHe",
    "<|im_start|>user\nhi<|im_end|>\n",
    "<|im_end|>",
    "<|im_end|><|im_end|>",
    " <|im_end|> ",
    "a<|im_end|>b",
    "<|im_end",
    "<|IM_END|>",
    "<|endoftext|>x",
    "<repo_name>a<file_sep>b",
    "<|im_<|im_end|>end|>",
    "line one\nline two\n\nline four",
    "trailing space \n next",
    "a \n b",
    "a\n\n\nb",
    "  leading",
    "\n leading",
    "mixed \t \n white",
    "tab\tseparated\tvalues",
    "Zażółć gęślą jaźń",
    "Příliš žluťoučký kůň",
    "El niño comió piñas",
    "Ünïcödé",
    "ĳssel",
    "Dvořák",
    "Ελλάδα 2004",
    "Россия-2018",
    "日本語とEnglishの混在",
    "中文English混合123",
]


def random_texts(count: int) -> list[str]:
    draw = random.Random(7)
    ranges = [
        (0x20, 0x7E),
        (0x20, 0x7E),
        (0xA0, 0x24F),
        (0x370, 0x5FF),
        (0x900, 0x97F),
        (0x2000, 0x206F),
        (0x2190, 0x22FF),
        (0x3040, 0x30FF),
        (0x4E00, 0x4FFF),
        (0x1F300, 0x1F64F),
        (0x09, 0x0D),
    ]
    texts = []
    for _ in range(count):
        length = draw.randint(1, 24)
        texts.append("".join(chr(draw.randint(*draw.choice(ranges))) for _ in range(length)))
    return texts


def passage_texts() -> list[str]:
    texts = []
    for path in PASSAGES:
        text = path.read_text()
        texts += [text[at : at + 400] for at in range(0, min(len(text), 4000), 400)]
    return texts


ALL_TEXTS = TEXTS + random_texts(120) + passage_texts()


def write(name: str, value: object) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / name).write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")


def smollm2(path: str) -> Tokenizer:
    """The model's own pipeline, built from the file's vocabulary without transformers' GGUF reader, which leaves the digits out."""
    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    kinds = fields["tokenizer.ggml.token_type"].contents()
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False, special=True) for t, k in zip(tokens, kinds) if k == 3]
    )
    return tokenizer


SPECIALS = ["<unk>", "<s>", "</s>"]
MARKS = [
    AddedToken("<|turn|>", normalized=False, special=True),
    AddedToken("<mask>", lstrip=True, normalized=False, special=True),
    AddedToken("<gap>", rstrip=True, normalized=False, special=True),
    AddedToken("word", single_word=True, normalized=False),
    AddedToken("<think>", normalized=False),
    AddedToken("Caf\u00e9", normalized=True),
    AddedToken("\n\n", normalized=False),
]
MARK_TEXTS = [
    "<|turn|>hi",
    "a <mask> b",
    "a<mask>b",
    " <gap>  b",
    "word sword words word",
    "my word",
    "word",
    "<think>x</think>",
    "a Caf\u00e9 b",
    "a Cafe\u0301 b",
    "a\n\nb",
    "a\n\n\nb",
    "<|turn|><|turn|> <mask> <gap> word",
]
# Bytes stand for all other characters.
LETTERS = [chr(c) for c in range(0x21, 0x7F)] + ["\u2581", "\u00e9", "\u00fc"]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def trained(kind: str) -> Tokenizer:
    """A tokenizer of each kind that checkpoints come with, trained on the passages."""
    byte_tokens = [f"<0x{b:02X}>" for b in range(256)]
    is_pieces = kind in ("prepend", "metaspace")
    tokenizer = Tokenizer(
        models.BPE(
            byte_fallback=is_pieces,
            unk_token="<unk>" if is_pieces else None,
            fuse_unk=is_pieces,
            ignore_merges=kind == "split",
        )
    )
    if kind == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    elif kind == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence(
            [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first", split=False)]
        )
    elif kind == "split":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(False)
        tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=SPECIALS + (byte_tokens if is_pieces else []),
        initial_alphabet=LETTERS if is_pieces else pre_tokenizers.ByteLevel.alphabet(),
        limit_alphabet=len(LETTERS) if is_pieces else 256,
        show_progress=False,
    )
    words = "\n".join(p.read_text() for p in PASSAGES).split(" ")
    tokenizer.train_from_iterator([" ".join(words[i : i + 8]) for i in range(0, len(words), 8)], trainer)
    if is_pieces:
        # bytes are ordinary pieces of the vocabulary, only the first three are control tokens
        state = json.loads(tokenizer.to_str())
        state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in SPECIALS]
        tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_tokens(MARKS)
    bos = ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[bos]
    )
    return tokenizer


def cases(tokenizer: Tokenizer, texts: list[str]) -> list[dict]:
    out = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        out.append(
            {
                "text": text,
                "ids": ids,
                "raw": tokenizer.encode(text).ids,
                "decoded": tokenizer.decode(ids, skip_special_tokens=True),
            }
        )
    return out


# Each exercises other parts of the language; none is a model's own.
TEMPLATES = {
    "loop": "{% for m in messages %}[{{ loop.index0 }}/{{ loop.length }}{{ ' first' if loop.first }}{{ ' last' if loop.last }}] {{ m.role|upper }}: {{ m.content|trim }}{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}",
    "blocks": """
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set system = 'none given' %}
    {%- set rest = messages %}
{%- endif %}
{{- bos_token + 'SYS ' + system }}
{%- for m in rest %}
    {%- if (m.role == 'user') != (loop.index0 % 2 == 0) and m.role in ['user', 'assistant'] and strict is defined %}
        {{- raise_exception('turns must alternate') }}
    {%- endif %}
    {{- '\n<' ~ m.role ~ '>' ~ m['content'] ~ '</' ~ m.role ~ '>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '\n<assistant>' }}{%- endif %}
""",
    "tools": """
{%- if tools %}TOOLS:
{% for t in tools %}{{ t | tojson }}
{{ t.function.parameters | tojson(indent=2) if t.function.parameters }}
{% endfor %}{% endif %}
{%- macro call(c) -%}
CALL {{ c.function.name }}({%- for k, v in c.function.arguments.items() -%}{{ k }}={{ v if v is string else v | tojson }}{{ ', ' if not loop.last }}{%- endfor -%})
{%- endmacro %}
{%- set ns = namespace(last=-1, calls=0) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{% if m.role == 'tool' %}<result id={{ m.tool_call_id }}>{{ m.content }}</result>
{%- else %}<{{ m.role }}{{ ' name=' + m.name if m.name is defined }}>{{ m.content }}
{%- if m.reasoning_content is defined and loop.index0 > ns.last %}<think>{{ m.reasoning_content }}</think>{% endif %}
{%- if m.tool_calls %}{% for c in m.tool_calls %}{{ call(c) }}{% set ns.calls = ns.calls + 1 %}{% endfor %}{% endif %}</{{ m.role }}>
{%- endif %}{% endfor %}
calls={{ ns.calls }}{% if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}
""",
    "filters": """
{%- for m in messages -%}
{%- if m.content is none or not m.content -%}{% continue %}{%- endif -%}
{%- set words = m.content.split(' ') -%}
{{ words | length }} {{ words | first }} {{ words[-1] }} {{ words[:2] | join('+') }} {{ m.content | replace('a', 'A') | upper }} {{ 'W' if m.content.strip().startswith('W') else '-' }} {{ m.content[::-1] }}
{{ words | list | tojson }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ m.content | default('x', true) | lower }} {{ [3, 1, 2] | sort | join(',') }}
{% endfor -%}
{{ [1, 2.5, true, none, 'q"uo\\te', {'k': [1]}] | tojson }} {{ 7 // 2 }} {{ 7 % 4 }} {{ 'yes' if 'a' in 'cat' else 'no' }} {{ range(3) | list }}
""",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}{{ m.content }}{% endgeneration %}{% else %}U:{{ m.content }}{% endif %}\n{% endfor %}",
}

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'The weather of a "place" \u2014 d\u00e9j\u00e0 vu',
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "enum": ["Paris", "Z\u00fcrich"]},
                "days": {"type": "integer", "minimum": 1},
            },
            "required": ["city"],
        },
    },
}
PLAIN_TOOL = {"type": "function", "function": {"name": "now"}}


def conversation(*turns: tuple, tools: list | None = None, **kwargs) -> dict:
    messages = []
    for role, content, *more in turns:
        messages.append({"role": role, "content": content, **(more[0] if more else {})})
    return {"messages": messages, "tools": tools, "kwargs": kwargs}


def call(name: str, **arguments) -> dict:
    return {"id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": arguments}}


CONVERSATIONS = [
    conversation(("user", "What is the capital of France?")),
    conversation(("system", "Be brief."), ("user", "What color is the sky?")),
    conversation(("user", "Hi"), ("assistant", "Hello!"), ("user", "Who are you?")),
    conversation(
        ("system", "You are Ada."), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")
    ),
    conversation(("user", "  spaces around  \n")),
    conversation(("user", "")),
    conversation(("user", "multi\nline\n\ntext")),
    conversation(("user", "\u00fcn\u00efc\u00f6d\u00e9 \U0001f642 \u4f60\u597d")),
    conversation(("user", "{{ not }} {% a template %} {# at all #}")),
    conversation(("user", "quotes ' and \" and \\ backslash")),
    conversation(("system", ""), ("user", "empty system")),
    conversation(("user", "x"), ("user", "two in a row")),
    conversation(("user", "<b>markup</b> & entities &amp;")),
    conversation(("user", "numbers 1 22 333 4444")),
    conversation(("user", "strict"), ("assistant", "ok"), ("user", "fine"), strict=True),
    conversation(("user", "Weather in Paris?"), tools=[TOOL]),
    conversation(
        ("user", "Weather?"),
        ("assistant", "", {"tool_calls": [call("get_weather", city="Paris", days=2)]}),
        ("tool", '{"t": 21}', {"tool_call_id": "call_get_weather"}),
        tools=[TOOL, PLAIN_TOOL],
    ),
    conversation(
        ("user", "Both?"),
        ("assistant", "Let me see.", {"tool_calls": [call("get_weather", city="Z\u00fcrich"), call("now")]}),
        ("tool", "rain", {"tool_call_id": "a"}),
        ("tool", "noon", {"tool_call_id": "b"}),
        ("assistant", "Rain at noon."),
        ("user", "Thanks"),
        tools=[TOOL, PLAIN_TOOL],
    ),
    conversation(
        ("user", "Think"),
        ("assistant", "4", {"reasoning_content": "2+2"}),
        ("user", "Again"),
        ("assistant", "still 4", {"reasoning_content": "same"}),
        ("user", "ok"),
        enable_thinking=False,
    ),
    conversation(
        ("user", "named", {"name": "bob"}),
        ("assistant", "hi bob"),
        ("user", "bye", {"name": "bob"}),
        enable_thinking=True,
    ),
    conversation(
        ("user", "What a long way it is to the sea and back again, she said."),
        ("assistant", "Walk Anyway."),
        ("user", "Why"),
    ),
    conversation(("user", "Trailing newline\n"), ("assistant", "\nleading newline"), ("user", "end")),
]


def rendered(tokenizer: PreTrainedTokenizerFast, template: str, c: dict) -> str | None:
    try:
        return tokenizer.apply_chat_template(
            c["messages"],
            tools=c["tools"],
            chat_template=template,
            add_generation_prompt=True,
            tokenize=False,
            **c["kwargs"],
        )
    except Exception as error:  # the template refuses, as it does here
        return None if "alternate" in str(error) or "not a mapping" in str(error) else fail(error)


def fail(error: Exception):
    raise error


def main() -> None:
    gguf_path = sys.argv[1]
    own = smollm2(gguf_path)
    write("smollm2.json", [{"text": t, "ids": own.encode(t).ids} for t in ALL_TEXTS])
    for kind in ("prepend", "metaspace", "split", "nfc"):
        tokenizer = trained(kind)
        texts = TEXTS + MARK_TEXTS + random_texts(40)
        write(f"tokenizer-{kind}.json", {"tokenizer": json.loads(tokenizer.to_str()), "cases": cases(tokenizer, texts)})
    fast = PreTrainedTokenizerFast(tokenizer_object=own, bos_token="<|im_start|>", eos_token="<|im_end|>")
    template = GGUFReader(gguf_path).fields["tokenizer.chat_template"].contents()
    templates = {"smollm2": template, **TEMPLATES}
    write(
        "templates.json",
        {
            "templates": templates,
            "named": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"},
            "conversations": CONVERSATIONS,
            "rendered": {
                name: [rendered(fast, source, c) for c in CONVERSATIONS] for name, source in templates.items()
            },
            "smollm2Ids": [own.encode(rendered(fast, template, c)).ids for c in CONVERSATIONS],
        },
    )
    formats = [
        "%d %b %Y",
        "%Y-%m-%d",
        "%A, %B %d, %Y",
        "%H:%M:%S",
        "%I:%M %p",
        "%-d/%-m/%y",
        "%j %e %a %%",
        "%F %T %R %D",
        "no directive",
    ]
    moments = [(2024, 2, 29, 0, 5, 9), (2026, 11, 24, 13, 30, 0), (1999, 12, 31, 23, 59, 59), (2000, 1, 1, 12, 0, 0)]
    write(
        "strftime.json",
        [{"moment": m, "format": f, "text": datetime.datetime(*m).strftime(f)} for m in moments for f in formats],
    )


main()
