"""Tiny GGUF models of each storage type, and what transformers computes with their dequantized weights.

    python scripts/golden/gguf_models.py [name ...]

Writes test/fixtures/gguf/<name>.gguf and test/fixtures/golden/gguf/<name>.{json,bin}; README.md tells the format.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
import torch
from gguf.quants import dequantize, quantize
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

import tokenizer as tiny_tokenizer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1] / "test" / "fixtures"
TYPE = gguf.GGMLQuantizationType
PROMPT_TOKENS = 12

# name → architecture, storage type, hidden size, layers, and what is special
MODELS = {
    "llama-F32": ("llama", "F32", 64, 1, {}),
    "llama-F16": ("llama", "F16", 64, 2, {}),
    "llama-BF16": ("llama", "BF16", 64, 2, {}),
    "llama-Q4_0": ("llama", "Q4_0", 64, 2, {}),
    "llama-Q4_1": ("llama", "Q4_1", 64, 2, {}),
    "llama-Q5_0": ("llama", "Q5_0", 64, 2, {}),
    "llama-Q5_1": ("llama", "Q5_1", 64, 2, {}),
    "llama-Q8_0": ("llama", "Q8_0", 64, 2, {}),
    "llama-Q2_K": ("llama", "Q2_K", 256, 1, {"tied": True}),
    "llama-Q3_K": ("llama", "Q3_K", 256, 1, {"tied": True}),
    "llama-Q4_K": ("llama", "Q4_K", 256, 1, {"tied": True}),
    "llama-Q5_K": ("llama", "Q5_K", 256, 1, {"tied": True}),
    "llama-Q6_K": ("llama", "Q6_K", 256, 1, {"tied": True}),
    "llama-factors": ("llama", "Q8_0", 64, 2, {"tied": True, "factors": True}),
    "llama-biases": ("llama", "Q8_0", 64, 2, {"biases": True}),
    "llama-spm": ("llama", "Q8_0", 64, 1, {"spm": True}),
    "llama-parts": ("llama", "Q4_0", 64, 2, {"parts": 10}),
    "qwen2-Q8_0": ("qwen2", "Q8_0", 64, 2, {"tied": True, "yarn": True}),
    "qwen3-Q4_0": ("qwen3", "Q4_0", 64, 2, {}),
}

STRINGS = [
    "Hello there, how are you?",
    "  two blanks  before and after  ",
    "Zahlen 1234567890, Wörter, naïve café",
    "日本語 and emoji 🙂🙃",
    "line one\nline two\n\n\tindented",
    "x",
    "",
]


# ---- K-quants: gguf reads them but does not write them


def f16(x):
    return np.asarray(x, np.float32).astype(np.float16)


def pack_scales(scales, mins):
    """Eight scales and minima of 6 bits in 12 bytes, as get_scale_min_k4 of ggml-quants.c reads them."""
    out = np.zeros(scales.shape[:-1] + (12,), np.uint8)
    for j in range(4):
        out[..., j] = scales[..., j] | (scales[..., j + 4] >> 4 << 6)
        out[..., j + 4] = mins[..., j] | (mins[..., j + 4] >> 4 << 6)
        out[..., j + 8] = (scales[..., j + 4] & 15) | ((mins[..., j + 4] & 15) << 4)
    return out


def with_minima(x, group, levels, steps):
    """x (…, 256) → d, dmin (float16), whole scales, minima and numbers of w = d·scale·q − dmin·min."""
    g = x.reshape(x.shape[:-1] + (-1, group))
    low = np.minimum(g.min(-1), 0)
    scale = (g.max(-1) - low) / levels
    d, dmin = f16(scale.max(-1) / steps), f16((-low).max(-1) / steps)
    whole = lambda v, unit: np.clip(np.rint(v / np.maximum(unit.astype(np.float32), 1e-12)[..., None]), 0, steps).astype(np.uint8)
    scales, mins = whole(scale, d), whole(-low, dmin)
    step = d.astype(np.float32)[..., None] * scales
    offset = dmin.astype(np.float32)[..., None] * mins
    q = np.rint((g + offset[..., None]) / np.where(step == 0, 1, step)[..., None])
    return d, dmin, scales, mins, np.clip(q, 0, levels).astype(np.uint8)


def symmetric(x, group, half, steps):
    """x (…, 256) → d (float16), signed whole scales and numbers of w = d·scale·(q − half)."""
    g = x.reshape(x.shape[:-1] + (-1, group))
    at = np.abs(g).argmax(-1)[..., None]
    peak = np.take_along_axis(g, at, -1)[..., 0]
    scale = -peak / half  # the largest value is the one that has the extra level
    d = f16(np.abs(scale).max(-1) / steps)
    scales = np.clip(np.rint(scale / np.maximum(d.astype(np.float32), 1e-12)[..., None]), -steps, steps - 1)
    step = d.astype(np.float32)[..., None] * scales
    q = np.rint(g / np.where(step == 0, 1, step)[..., None]) + half
    return d, scales.astype(np.int8), np.clip(q, 0, 2 * half - 1).astype(np.uint8)


def raw(*parts):
    return np.concatenate([p.view(np.uint8) if p.dtype != np.uint8 else p for p in parts], -1)


def nibbles(q):
    """(…, 256) → (…, 128): chunks of 64, the first 32 of them in the low halves."""
    c = q.reshape(q.shape[:-1] + (4, 2, 32))
    return (c[..., 0, :] | (c[..., 1, :] << 4)).reshape(q.shape[:-1] + (128,))


def quarters(q):
    """2-bit numbers (…, 256) → (…, 64): of each 128, the four 32s at bits 0, 2, 4 and 6."""
    c = q.reshape(q.shape[:-1] + (2, 4, 32))
    return (c[..., 0, :] | c[..., 1, :] << 2 | c[..., 2, :] << 4 | c[..., 3, :] << 6).reshape(q.shape[:-1] + (64,))


def quantize_k(data, name):
    x = data.reshape(data.shape[0], -1, 256)
    if name in ("Q4_K", "Q5_K"):
        d, dmin, scales, mins, q = with_minima(x, 32, 15 if name == "Q4_K" else 31, 63)
        flat = q.reshape(x.shape)
        head = [d[..., None], dmin[..., None], pack_scales(scales, mins)]
        if name == "Q4_K":
            out = raw(*head, nibbles(flat))
        else:
            high = np.zeros(x.shape[:-1] + (32,), np.uint8)
            for j in range(8):
                high |= (q[..., j, :] >> 4) << j
            out = raw(*head, high, nibbles(flat & 15))
    elif name == "Q6_K":
        d, scales, q = symmetric(x, 16, 32, 128)
        c = q.reshape(x.shape[:-1] + (2, 4, 32))
        low = np.stack([(c[..., 0, :] & 15) | (c[..., 2, :] & 15) << 4, (c[..., 1, :] & 15) | (c[..., 3, :] & 15) << 4], -2)
        high = c[..., 0, :] >> 4 | c[..., 1, :] >> 4 << 2 | c[..., 2, :] >> 4 << 4 | c[..., 3, :] >> 4 << 6
        out = raw(low.reshape(x.shape[:-1] + (128,)), high.reshape(x.shape[:-1] + (64,)), scales, d[..., None])
    elif name == "Q2_K":
        d, dmin, scales, mins, q = with_minima(x, 16, 3, 15)
        out = raw(scales | (mins << 4), quarters(q.reshape(x.shape)), d[..., None], dmin[..., None])
    elif name == "Q3_K":
        d, scales, q = symmetric(x, 16, 4, 32)
        s = (scales.astype(np.int16) + 32).astype(np.uint8)
        packed = np.zeros(x.shape[:-1] + (12,), np.uint8)
        for k in range(16):
            packed[..., k % 8] |= (s[..., k] & 15) << (0 if k < 8 else 4)
            packed[..., 8 + k % 4] |= (s[..., k] >> 4) << (2 * (k // 4))
        flat = q.reshape(x.shape)
        mask = np.zeros(x.shape[:-1] + (32,), np.uint8)
        for j in range(8):
            mask |= (flat[..., 32 * j : 32 * j + 32] >> 2) << j
        out = raw(mask, quarters(flat & 3), packed, d[..., None])
    return out.reshape(data.shape[0], -1)


def stored(data, name):
    """A matrix as its bytes in the file, and as the float32 values that they hold."""
    kind, data = TYPE[name], data.astype(np.float32)
    blocks = quantize_k(data, name) if name.endswith("_K") else quantize(data, kind)
    values = dequantize(blocks, kind).reshape(data.shape).astype(np.float32)
    error = np.sqrt(((values - data) ** 2).mean() / (data**2).mean())
    allowed = {"F32": 0, "F16": 1e-3, "BF16": 1e-2}.get(name)
    assert error <= (1.5 / 2 ** int(name[1]) if allowed is None else allowed), (name, error)
    return blocks, values


# ---- models


def to_pairs(x, heads):
    """Rows of each head from halves to pairs, as llama.cpp's converter stores them."""
    return x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def to_halves(x, heads):
    return x.reshape(heads, x.shape[0] // heads // 2, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def sentencepiece_vocabulary():
    """A small BPE model of SentencePiece, trained on the passages; bytes for what it does not know."""
    with tempfile.TemporaryDirectory() as folder:
        sentencepiece.SentencePieceTrainer.train(
            input=sorted(str(p) for p in (HERE / "passages").glob("*.txt")),
            model_prefix=f"{folder}/m",
            model_type="bpe",
            vocab_size=512,
            byte_fallback=True,
            character_coverage=0.98,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            minloglevel=2,
        )
        return sentencepiece.SentencePieceProcessor(model_file=f"{folder}/m.model")


def add_vocabulary(writer, special):
    """Returns the number of tokens and, for SentencePiece, what it makes of the strings."""
    writer.add_chat_template(tiny_tokenizer.CHAT_TEMPLATE)
    if special.get("spm"):
        sp = sentencepiece_vocabulary()
        size = sp.vocab_size()
        kind = lambda i: 2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([sp.id_to_piece(i).encode() for i in range(size)])
        writer.add_token_scores([sp.get_score(i) for i in range(size)])
        writer.add_token_types([kind(i) for i in range(size)])
        writer.add_bos_token_id(sp.bos_id())
        writer.add_eos_token_id(sp.eos_id())
        writer.add_unk_token_id(sp.unk_id())
        return size, [{"text": s, "ids": sp.encode(s), "decoded": sp.decode(sp.encode(s))} for s in STRINGS]
    tokenizer = tiny_tokenizer.build()
    model = json.loads(tokenizer.to_str())["model"]
    size = tokenizer.get_vocab_size()
    specials = {tokenizer.token_to_id(s): 3 for s in tiny_tokenizer.SPECIALS}
    marks = {tokenizer.token_to_id(s): 4 for s in tiny_tokenizer.MARKERS}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([tokenizer.id_to_token(i).encode() for i in range(size)])
    writer.add_token_types([specials.get(i, marks.get(i, 1)) for i in range(size)])
    writer.add_token_merges([" ".join(m) if isinstance(m, list) else m for m in model["merges"]])
    writer.add_eos_token_id(tokenizer.token_to_id("<|im_end|>"))
    writer.add_pad_token_id(tokenizer.token_to_id("<|endoftext|>"))
    writer.add_add_bos_token(False)
    return size, None


def make(name):
    arch, storage, hidden, layers, special = MODELS[name]
    heads, kv_heads = 4, 2 if hidden == 64 else 1
    head_dim = 32 if arch == "qwen3" else hidden // heads
    inner = 128 if hidden == 64 else 256
    theta = 10000.0 if arch == "llama" else 1e6
    target = ROOT / "gguf" / f"{name}.gguf"
    target.parent.mkdir(parents=True, exist_ok=True)
    for old in target.parent.glob(f"{name}*.gguf"):
        old.unlink()
    writer = gguf.GGUFWriter(target, arch, split_max_tensors=special.get("parts", 0))
    vocab, strings = add_vocabulary(writer, special)
    writer.add_context_length(2048)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(theta)
    writer.add_vocab_size(vocab)
    if arch == "qwen3":
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    else:
        writer.add_rope_dimension_count(head_dim)
    if special.get("yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(512)

    rng = np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16))
    state = {}

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    def matrix(gguf_name, hf_name, data, paired=0):
        blocks, values = stored(to_pairs(data, paired) if paired else data, storage)
        writer.add_tensor(gguf_name, blocks, raw_dtype=TYPE[storage])
        state[hf_name] = to_halves(values, paired) if paired else values

    def vector(gguf_name, hf_name, data, paired=0):
        data = data.astype(np.float32)
        writer.add_tensor(gguf_name, to_pairs(data, paired) if paired else data)
        state[hf_name] = data

    # gains as in tiny.py: the layers, not the embedding, decide, and logits spread by about 4
    matrix("token_embd.weight", "model.embed_tokens.weight", 0.5 * normal(vocab, hidden))
    for i in range(layers):
        block, hf = f"blk.{i}", f"model.layers.{i}"
        paired = (heads, kv_heads) if arch == "llama" else (0, 0)
        gain = 1.2 / np.sqrt(hidden)
        vector(f"{block}.attn_norm.weight", f"{hf}.input_layernorm.weight", 1 + 0.2 * normal(hidden))
        matrix(f"{block}.attn_q.weight", f"{hf}.self_attn.q_proj.weight", gain * normal(heads * head_dim, hidden), paired[0])
        matrix(f"{block}.attn_k.weight", f"{hf}.self_attn.k_proj.weight", gain * normal(kv_heads * head_dim, hidden), paired[1])
        matrix(f"{block}.attn_v.weight", f"{hf}.self_attn.v_proj.weight", gain * normal(kv_heads * head_dim, hidden))
        matrix(f"{block}.attn_output.weight", f"{hf}.self_attn.o_proj.weight", 2.5 / np.sqrt(heads * head_dim) * normal(hidden, heads * head_dim))
        if arch == "qwen2" or special.get("biases"):
            vector(f"{block}.attn_q.bias", f"{hf}.self_attn.q_proj.bias", 0.3 * normal(heads * head_dim), paired[0])
            vector(f"{block}.attn_k.bias", f"{hf}.self_attn.k_proj.bias", 0.3 * normal(kv_heads * head_dim), paired[1])
            vector(f"{block}.attn_v.bias", f"{hf}.self_attn.v_proj.bias", 0.3 * normal(kv_heads * head_dim))
        if special.get("biases"):
            vector(f"{block}.attn_output.bias", f"{hf}.self_attn.o_proj.bias", 0.3 * normal(hidden))
            for part in ("gate", "up"):
                vector(f"{block}.ffn_{part}.bias", f"{hf}.mlp.{part}_proj.bias", 0.3 * normal(inner))
            vector(f"{block}.ffn_down.bias", f"{hf}.mlp.down_proj.bias", 0.3 * normal(hidden))
        if arch == "qwen3":
            vector(f"{block}.attn_q_norm.weight", f"{hf}.self_attn.q_norm.weight", 1 + 0.2 * normal(head_dim))
            vector(f"{block}.attn_k_norm.weight", f"{hf}.self_attn.k_norm.weight", 1 + 0.2 * normal(head_dim))
        vector(f"{block}.ffn_norm.weight", f"{hf}.post_attention_layernorm.weight", 1 + 0.2 * normal(hidden))
        matrix(f"{block}.ffn_gate.weight", f"{hf}.mlp.gate_proj.weight", gain * normal(inner, hidden))
        matrix(f"{block}.ffn_up.weight", f"{hf}.mlp.up_proj.weight", gain * normal(inner, hidden))
        matrix(f"{block}.ffn_down.weight", f"{hf}.mlp.down_proj.weight", 2.5 / np.sqrt(inner) * normal(hidden, inner))
    vector("output_norm.weight", "model.norm.weight", 1 + 0.2 * normal(hidden))
    if not special.get("tied"):
        matrix("output.weight", "lm_head.weight", 0.5 * normal(vocab, hidden))
    if special.get("factors"):
        # llama.cpp's converter writes Llama 3's rule as one divisor for each frequency
        rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
        inverse = theta ** -(np.arange(0, head_dim, 2) / head_dim)
        wave = 2 * np.pi / inverse
        smooth = np.clip((64 / wave - 1) / (4 - 1), 0, 1)
        writer.add_tensor("rope_freqs.weight", (1 / ((1 - smooth) / 8 + smooth)).astype(np.float32))
    elif special.get("yarn"):
        rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
    else:
        rope = {"rope_type": "default"}
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    config_class, model_class = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    }[arch]
    biases = {"attention_bias": True, "mlp_bias": True} if special.get("biases") else {}
    model = model_class(
        config_class(
            vocab_size=vocab,
            hidden_size=hidden,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            rms_norm_eps=1e-5,
            max_position_embeddings=2048,
            rope_parameters={"rope_theta": theta, **rope},
            tie_word_embeddings=bool(special.get("tied")),
            attn_implementation="eager",
            **biases,
        )
    ).eval()
    if special.get("tied"):
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in state.items()}, strict=True)
    ids = rng.integers(3, vocab - 8, PROMPT_TOKENS).tolist()
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].numpy().astype("<f4")
    golden = ROOT / "golden" / "gguf"
    golden.mkdir(parents=True, exist_ok=True)
    (golden / f"{name}.bin").write_bytes(logits.tobytes())
    facts = {"ids": ids, "vocabulary": vocab, **({"strings": strings} if strings else {})}
    (golden / f"{name}.json").write_text(json.dumps(facts, ensure_ascii=False) + "\n")
    files = sorted(target.parent.glob(f"{name}*.gguf"))
    print(f"{name:14} spread {logits.std():.2f}  {[f.stat().st_size // 1024 for f in files]} KiB")


if __name__ == "__main__":
    for name in sys.argv[1:] or MODELS:
        make(name)
