"""What transformers on torch computes with the default model's own file, in float32.

    python scripts/golden/smollm2.py <SmolLM2-135M-Instruct.Q4_1.gguf>

Writes test/fixtures/golden/smollm2/; README.md tells the format.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / "test" / "fixtures" / "golden" / "smollm2"
PASSAGES = ("story", "science", "code", "languages")
POSITIONS = 512
TOP = 256
GREEDY_TOKENS = 128

# Where the two ways to split text differ: the model's own tokenizer takes every digit alone before it looks at spaces.
STRINGS = [
    "Hello, world!",
    "  two leading spaces and two trailing  ",
    "In 2024, 12345 people (37%) paid $9.99.",
    "a  5 b   66\n\n 7\t8",
    "½ ² ٣ 四",
    "it's, we'll, I'd, they've, you're, don't",
    "naïve café ÅNGSTRÖM ﬁ e\u0301",
    "🙂👩‍👩‍👧🇫🇷",
    "今天天气很好 明日の会議 مرحبا Привет",
    "tabs\tand\r\nline ends\n\n\n",
    "<|im_start|>user\nhi<|im_end|><repo_name><file_sep>x",
    "<|im_start|><|im_start|>",
    "<|im_sta rt|> <|IM_START|>",
    "x = {'key': [1, 2.5e-3, None]}  # comment",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "\u00a0\u2003\u200b\ufeff\u0000\u0007",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "",
]


def check_weights(model, path):
    """transformers' tensors against gguf's own dequantization, bit for bit; q and k rows are stored interleaved."""
    names = {
        "token_embd": "model.embed_tokens",
        "output_norm": "model.norm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    state = model.state_dict()
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    seen = {"lm_head.weight"}
    for tensor in gguf.GGUFReader(path).tensors:
        parts = tensor.name.split(".")
        prefix = f"model.layers.{parts[1]}." if parts[0] == "blk" else ""
        name = f"{prefix}{names[parts[-2]]}.weight"
        data = gguf.dequantize(tensor.data, tensor.tensor_type)
        if parts[-2] in heads:
            rows, columns = data.shape
            n = heads[parts[-2]]
            data = data.reshape(n, rows // n // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
        assert np.array_equal(state[name].numpy(), data), name
        seen.add(name)
    assert seen == set(state), seen ^ set(state)


def own_tokenizer(tokenizer):
    """SmolLM2's own rule, which the file names as "smollm" and transformers leaves out: every digit stands alone."""
    own = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    own.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return own


def encode(tokenizer, own, text):
    """Ids on which transformers and the model's own rule agree."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == own.encode(text, add_special_tokens=False).ids, text
    return ids


def passage(model, ids, path):
    """ids uint16 (P, 256), log-probabilities float32 (P, 256), log of the rest float32 (P), margins float32 (P)."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    logprobs = torch.log_softmax(logits, -1).numpy()
    # Stable: of equal values the lower id comes first, as an argmax takes it.
    order = np.argsort(-logprobs, axis=-1, kind="stable")
    top = np.take_along_axis(logprobs, order[:, :TOP], -1)
    rest = np.log(np.exp(np.take_along_axis(logprobs, order[:, TOP:], -1)).sum(-1))
    path.write_bytes(
        order[:, :TOP].astype("<u2").tobytes()
        + top.astype("<f4").tobytes()
        + rest.astype("<f4").tobytes()
        + (top[:, 0] - top[:, 1]).astype("<f4").tobytes()
    )
    actual = np.array([logprobs[i, ids[i + 1]] for i in range(len(ids) - 1)])
    print(f"{path.stem}: perplexity {np.exp(-actual.mean()):.2f}, mass outside {np.exp(rest).mean():.4f}, "
          f"margins < 1e-3: {(top[:, 0] - top[:, 1] < 1e-3).sum()}")


def greedy(model, prompts, pad):
    """128 most probable tokens each, going on after EOS, and margins between the two largest logits; padded left."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    tokens, margins, cache = [], [], None
    with torch.no_grad():
        for _ in range(GREEDY_TOKENS):
            out = model(ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            top = out.logits[:, -1].topk(2).values
            ids = out.logits[:, -1].argmax(-1, keepdim=True)
            tokens.append(ids[:, 0])
            margins.append(top[:, 0] - top[:, 1])
            mask = torch.cat([mask, torch.ones_like(ids)], -1)
            positions = positions[:, -1:] + 1
    return torch.stack(tokens, -1).tolist(), torch.stack(margins, -1).tolist()


def main(path):
    torch.set_num_threads(2)
    OUT.mkdir(parents=True, exist_ok=True)
    source = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    own = own_tokenizer(tokenizer)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32, attn_implementation="eager")
    check_weights(model, path)

    texts = {}
    for name in PASSAGES:
        text = (HERE / "passages" / f"{name}.txt").read_text()
        ids = own.encode(text, add_special_tokens=False).ids[:POSITIONS]
        assert len(ids) == POSITIONS, name
        passage(model, ids, OUT / f"{name}.bin")
        texts[name] = ids
    write(OUT / "passages.json", {"positions": POSITIONS, "top": TOP, "passages": texts})

    write(OUT / "strings.json", [{"text": text, "ids": own.encode(text, add_special_tokens=False).ids} for text in STRINGS])

    conversations = json.loads((HERE / "prompts.json").read_text())
    prompts = [tokenizer.apply_chat_template(c, add_generation_prompt=True, tokenize=False) for c in conversations]
    ids = [encode(tokenizer, own, prompt) for prompt in prompts]
    tokens, margins = greedy(model, ids, tokenizer.pad_token_id)
    chats = []
    for i, messages in enumerate(conversations):
        eos = tokenizer.eos_token_id
        answer = tokenizer.decode(tokens[i][: tokens[i].index(eos)] if eos in tokens[i] else tokens[i])
        chats.append(
            {
                "messages": messages,
                "prompt": prompts[i],
                "ids": ids[i],
                "greedy": tokens[i],
                "margins": [round(m, 4) for m in margins[i]],
                "answer": answer,
            }
        )
        print(len(ids[i]), repr(answer[:100]))
    write(OUT / "chats.json", chats)


def write(path, data):
    items = data if isinstance(data, list) else [data]
    lines = ",\n".join(json.dumps(item, ensure_ascii=False, separators=(",", ":")) for item in items)
    path.write_text((f"[\n{lines}\n]" if isinstance(data, list) else lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
