"""Tiny random checkpoints in MLX layout, and what mlx-lm computes with them.

    python scripts/golden/tiny.py [name ...]

Writes test/fixtures/models/<name>/ and test/fixtures/golden/tiny/<name>.{json,bin}; README.md tells the format.
"""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

os.environ["MLX_DISABLE_COMPILE"] = "1"

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import _get_classes, load_model

import tokenizer as tiny_tokenizer
from tokenizer import VOCABULARY, write_json

ROOT = Path(__file__).resolve().parents[2] / "test" / "fixtures"
PROMPT_LENGTHS = (5, 24, 48)
# Logits of every position are kept for this prompt only.
FULL_PROMPT = 1
GREEDY_TOKENS = 24
MIN_MARGIN = 0.03
NOISE = 2e-6
NOISE_DRAWS = 3

SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 2048,
}


def llama(**over):
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **SHAPE,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        **over,
    }


def mistral():
    """The dialect of transformers >= 5: rope_theta only inside rope_parameters, dtype instead of torch_dtype."""
    config = llama(
        architectures=["MistralForCausalLM"],
        model_type="mistral",
        sliding_window=None,
        head_dim=16,
        rope_parameters={"rope_theta": 1000000.0, "rope_type": "default"},
    )
    del config["rope_theta"]
    return config


def llama3():
    """Biases everywhere and the llama3 rope; the short original window makes its effect visible at position 1."""
    return llama(
        tie_word_embeddings=True,
        attention_bias=True,
        mlp_bias=True,
        rope_theta=500000.0,
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    )


def qwen2(tied=True):
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        **SHAPE,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": tied,
        "use_sliding_window": False,
        "sliding_window": 64,
        "max_window_layers": 3,
    }


def qwen3(tied=True):
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **SHAPE,
        "head_dim": 32,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": tied,
        "attention_bias": False,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": 3,
    }


def affine(bits, group_size):
    return {"group_size": group_size, "bits": bits, "mode": "affine"}


def mixed(path, _module):
    """Every width and group size once, and dense layers between quantized ones."""
    table = {
        "model.embed_tokens": affine(6, 32),
        "lm_head": affine(8, 32),
        "model.layers.0.self_attn.q_proj": affine(3, 64),
        "model.layers.0.self_attn.k_proj": affine(3, 32),
        "model.layers.0.mlp.down_proj": affine(5, 128),
        "model.layers.1.self_attn.v_proj": affine(6, 64),
        "model.layers.1.self_attn.o_proj": affine(5, 64),
        "model.layers.1.mlp.gate_proj": affine(2, 32),
        "model.layers.1.mlp.down_proj": affine(2, 64),
        "model.layers.2.self_attn.q_proj": False,
        "model.layers.2.mlp.up_proj": False,
        "model.layers.2.mlp.down_proj": affine(4, 128),
    }
    return table.get(path, True)


# name → config, weight dtype, quantization, number of files
VARIANTS = {
    "llama-f32": (llama(), "float32", None, 1),
    "llama-f16": (llama(), "float16", None, 1),
    "llama-bf16": (llama(), "bfloat16", None, 1),
    "llama-4bit": (llama(), "bfloat16", affine(4, 32), 1),
    "llama-8bit": (llama(), "bfloat16", affine(8, 64), 1),
    "llama-mixed": (llama(), "bfloat16", affine(4, 64) | {"predicate": mixed}, 1),
    "llama-sharded": (llama(), "bfloat16", None, 3),
    "llama-tied-4bit": (llama(tie_word_embeddings=True), "float16", affine(4, 32), 1),
    "llama3-f32": (llama3(), "float32", None, 1),
    "llama3-4bit": (llama3(), "bfloat16", affine(4, 32), 1),
    "mistral-f32": (mistral(), "float32", None, 1),
    "mistral-4bit": (mistral(), "float32", affine(4, 64), 1),
    "qwen2-f32": (qwen2(), "float32", None, 1),
    "qwen2-bf16": (qwen2(), "bfloat16", None, 1),
    "qwen2-4bit": (qwen2(), "bfloat16", affine(4, 32), 1),
    "qwen2-8bit": (qwen2(), "bfloat16", affine(8, 64), 1),
    "qwen2-untied-4bit": (qwen2(tied=False), "bfloat16", affine(4, 32), 1),
    "qwen3-f32": (qwen3(), "float32", None, 1),
    "qwen3-bf16": (qwen3(), "bfloat16", None, 1),
    "qwen3-4bit": (qwen3(), "bfloat16", affine(4, 32), 1),
    "qwen3-8bit": (qwen3(), "bfloat16", affine(8, 64), 1),
    "qwen3-untied-bf16": (qwen3(tied=False), "bfloat16", None, 1),
}


def model_args(config):
    """mlx-lm's llama reads rope_theta at the top only."""
    rope = config.get("rope_parameters", {})
    return {**config, **({"rope_theta": rope["rope_theta"]} if rope else {})}


def random_model(config, dtype, seed):
    """A model whose layers, not the embedding, decide the next token: gains are chosen so that logits spread by ~4."""
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(model_args(config)))
    rng = np.random.default_rng(seed)
    weights = []
    for path, value in sorted(tree_flatten(model.parameters())):
        noise = rng.standard_normal(value.shape).astype(np.float32)
        fan_in = value.shape[-1]
        if path.endswith("norm.weight"):
            data = 1 + 0.2 * noise
        elif path.endswith(".bias"):
            data = 0.3 * noise
        elif "embed_tokens" in path or "lm_head" in path:
            data = 0.5 * noise
        elif "o_proj" in path or "down_proj" in path:
            data = 2.5 / np.sqrt(fan_in) * noise
        else:
            data = 1.2 / np.sqrt(fan_in) * noise
        weights.append((path, mx.array(data.astype(np.float32)).astype(getattr(mx, dtype))))
    model.update(tree_unflatten(weights))
    return model


def save(model, config, dtype, quantization, files, folder):
    """Writes the checkpoint as mlx-lm would; returns nothing, the reference is computed from the files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokenizer = tiny_tokenizer.build()
    tiny_tokenizer.save(tokenizer, folder)
    config = {
        **config,
        ("dtype" if "rope_parameters" in config else "torch_dtype"): dtype,
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
    }
    if quantization:
        table = {k: quantization[k] for k in ("group_size", "bits", "mode")}
        predicate = quantization.get("predicate")

        def choose(path, module):
            if not hasattr(module, "to_quantized"):
                return False
            choice = predicate(path, module) if predicate else True
            if choice is not True:
                table[path] = choice
            return choice

        nn.quantize(
            model, quantization["group_size"], quantization["bits"], mode="affine", class_predicate=choose
        )
        config["quantization"] = table
        config["quantization_config"] = table
    write_json(folder / "config.json", config)

    weights = sorted(tree_flatten(model.parameters()))
    if files == 1:
        mx.save_safetensors(str(folder / "model.safetensors"), dict(weights), metadata={"format": "mlx"})
        return
    index = {}
    for i in range(files):
        name = f"model-{i + 1:05d}-of-{files:05d}.safetensors"
        part = dict(weights[i::files])
        mx.save_safetensors(str(folder / name), part, metadata={"format": "mlx"})
        index.update({path: name for path in part})
    total = sum(value.nbytes for _, value in weights)
    write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))},
    )


def logits_of(model, ids):
    """(T, V) float32: one forward pass over the whole text, without a cache."""
    return np.array(model(mx.array([ids]))[0].astype(mx.float32))


def greedy(model, ids):
    """Token by token with mlx-lm's cache: ids and top-2 margins."""
    cache = make_prompt_cache(model)
    row = np.array(model(mx.array([ids]), cache=cache)[0, -1])
    tokens, margins = [], []
    for _ in range(GREEDY_TOKENS):
        top = np.sort(row)[-2:]
        tokens.append(int(row.argmax()))
        margins.append(float(top[1] - top[0]))
        row = np.array(model(mx.array([[tokens[-1]]]), cache=cache)[0, -1])
    return tokens, margins


def twin_of(folder):
    """The checkpoint with every scale, bias and dense weight widened to float32, as mlx-lm loads it."""
    config = json.loads((folder / "config.json").read_text())
    model, _ = load_model(folder, model_config=model_args(config))
    model.set_dtype(mx.float32)
    return model


def noise_diff(folder, prompt, expected):
    """Largest change of a logit when every weight moves by a relative 2e-6, about what another order of sums can do."""
    worst = 0.0
    for draw in range(NOISE_DRAWS):
        rng = np.random.default_rng(draw)
        model = twin_of(folder)
        noisy = [
            (path, value if value.dtype == mx.uint32 else value * mx.array(
                (1 + NOISE * rng.standard_normal(value.shape)).astype(np.float32)))
            for path, value in tree_flatten(model.parameters())
        ]
        model.update(tree_unflatten(noisy))
        worst = max(worst, float(np.abs(logits_of(model, prompt) - expected).max()))
    return worst


def make(name):
    config, dtype, quantization, files = VARIANTS[name]
    folder = ROOT / "models" / name
    base = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
    for attempt in range(500):
        save(random_model(config, dtype, base + attempt), config, dtype, quantization, files, folder)
        twin = twin_of(folder)
        rng = np.random.default_rng(base + attempt)
        prompts = [rng.integers(0, VOCABULARY - 8, n).tolist() for n in PROMPT_LENGTHS]
        runs = [greedy(twin, prompt) for prompt in prompts]
        clear = all(min(margins) >= MIN_MARGIN for _, margins in runs)
        # Texts that loop or end at once would test little.
        varied = all(len(set(tokens)) >= 8 and max(tokens) < VOCABULARY - 8 for tokens, _ in runs)
        if clear and varied:
            break
    else:
        raise SystemExit(f"{name}: no seed gives clear margins")

    rows = [logits_of(twin, prompt) for prompt in prompts]
    stock, _ = load_model(folder, model_config=model_args(config))
    own = np.abs(logits_of(stock, prompts[FULL_PROMPT]) - rows[FULL_PROMPT])
    noise = noise_diff(folder, prompts[FULL_PROMPT], rows[FULL_PROMPT])
    blob = np.concatenate([row[-1] for row in rows] + [rows[FULL_PROMPT].reshape(-1)]).astype("<f4")
    golden = ROOT / "golden" / "tiny"
    golden.mkdir(parents=True, exist_ok=True)
    (golden / f"{name}.bin").write_bytes(blob.tobytes())
    text = json.dumps(
        {
            "model": name,
            "seed": base + attempt,
            "weights": dtype if not quantization else f"{quantization['bits']}-bit",
            "vocabulary": VOCABULARY,
            "fullPrompt": FULL_PROMPT,
            "noiseDiff": noise,
            "mlxLmOwnDtype": {"maxDiff": float(own.max()), "meanDiff": float(own.mean())},
            "prompts": [
                {"ids": prompt, "greedy": tokens, "margins": [round(m, 4) for m in margins]}
                for prompt, (tokens, margins) in zip(prompts, runs)
            ],
        }
    )
    (golden / f"{name}.json").write_text(text + "\n")
    spread = rows[FULL_PROMPT].std()
    print(
        f"{name:20} attempt {attempt:3} spread {spread:.2f} noise {noise:.1e} "
        f"own dtype max {own.max():.2e} mean {own.mean():.2e} "
        f"distinct {[len(set(t)) for t, _ in runs]} {sum(f.stat().st_size for f in folder.iterdir()) // 1024} KiB"
    )


if __name__ == "__main__":
    for name in sys.argv[1:] or VARIANTS:
        make(name)
