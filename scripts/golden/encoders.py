"""Tiny random encoders in the layout of sentence-transformers, and what the reference libraries compute with them.

    python scripts/golden/encoders.py [name ...]

Writes test/fixtures/encoders/<name>/ and test/fixtures/golden/encoders/<name>.json; README.md tells the format.
"""

import base64
import io
import json
import random
import shutil
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import sentencepiece
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from encoder_texts import PASSAGES, TEXTS
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2] / "test" / "fixtures"
VOCABULARY = 400
MAX_TOKENS = 128
COLBERT_WIDTH = 40

def random_texts(count: int) -> list[str]:
    """Texts of all lengths from the letters and words of the passages."""
    rng = random.Random(7)
    words = " ".join(PASSAGES).split()
    out = []
    for i in range(count):
        n = 1 + int(i * i / count)
        out.append(" ".join(rng.choice(words) for _ in range(n)))
    return out


# ---- tokenizers


def wordpiece() -> tuple[Tokenizer, dict]:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        PASSAGES, trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=specials, show_progress=False)
    )
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    )
    names = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    return tokenizer, {**names, "model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}


def unigram() -> tuple[Tokenizer, dict]:
    """As XLM-RoBERTa's: sentencepiece's own normalization, <s> text </s>, pairs with two </s> between."""
    data = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for p in PASSAGES for line in p.splitlines()),
        model_writer=data,
        vocab_size=VOCABULARY - 2,
        model_type="unigram",
        character_coverage=0.98,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(data.getvalue())
    pieces = [(p.piece, p.score) for p in proto.pieces[3:]]
    vocabulary = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces, ("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>", "cls_token": "<s>"}
    return tokenizer, names


def byte_level(specials: list[str], words: list[str] = ()) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [*PASSAGES, *(f"{word}\n" * 400 for word in words)]
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY - len(specials),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.add_special_tokens(specials)
    return tokenizer


def bpe_cls() -> tuple[Tokenizer, dict]:
    """As ModernBERT's."""
    tokenizer = byte_level(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    ids = {t: tokenizer.token_to_id(t) for t in ("[CLS]", "[SEP]")}
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=list(ids.items())
    )
    names = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    return tokenizer, names


def bpe_roberta() -> tuple[Tokenizer, dict]:
    """As RoBERTa's: pairs with two </s> between."""
    tokenizer = byte_level(["<mask>"])
    model = json.loads(tokenizer.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    vocabulary = {t: i for i, t in enumerate(["<s>", "<pad>", "</s>", "<unk>", *pieces, "<mask>"])}
    tokenizer.model = models.BPE(vocabulary, [tuple(m) for m in model["merges"]])
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>", "cls_token": "<s>"}
    return tokenizer, names


def bpe_end() -> tuple[Tokenizer, dict]:
    """As Qwen3-Embedding's: <|endoftext|> behind every text."""
    tokenizer = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"], ["yes", "no"])
    end = tokenizer.token_to_id("<|endoftext|>")
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="$A <|endoftext|>", pair="$A $B <|endoftext|>", special_tokens=[("<|endoftext|>", end)]
            ),
        ]
    )
    return tokenizer, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}


def bpe_plain() -> tuple[Tokenizer, dict]:
    """As Qwen3-Reranker's: nothing around a text."""
    tokenizer, names = bpe_end()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer, names


def gemma() -> tuple[Tokenizer, dict]:
    """Blanks are ▁, unknown characters are bytes, <bos> text <eos>."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trained.train_from_iterator(
        PASSAGES, trainers.BpeTrainer(vocab_size=160, limit_alphabet=70, show_progress=False)
    )
    model = json.loads(trained.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    vocabulary = {t: i for i, t in enumerate([*specials, *bytes_, *pieces])}
    merges = [tuple(m) for m in model["merges"]]
    tokenizer.model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", pair="<bos> $A <bos> $B <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    return tokenizer, {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}


# ---- models

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": MAX_TOKENS,
}
LABEL = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
THREE = {"id2label": {str(i): f"L{i}" for i in range(3)}, "label2id": {f"L{i}": i for i in range(3)}}
QWEN = {**SHAPE, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-6, "tie_word_embeddings": True}


def bert(**over):
    return {"model_type": "bert", **SHAPE, "layer_norm_eps": 1e-12, "type_vocab_size": 2, "pad_token_id": 0, **over}


def xlm(**over):
    shape = {**SHAPE, "max_position_embeddings": MAX_TOKENS + 2}
    return {"model_type": "xlm-roberta", **shape, "layer_norm_eps": 1e-5, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, **over}


def modern(**over):
    """A window of 8 to each side and a first layer that sees everything, as in the large ones."""
    return {
        "model_type": "modernbert",
        **SHAPE,
        "num_hidden_layers": 4,
        "local_attention": 16,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "norm_eps": 1e-5,
        **over,
    }


def nomic():
    return {
        "model_type": "nomic_bert",
        **SHAPE,
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
        "hidden_act": "silu",
        "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"},
    }


def gemma3():
    return {
        "model_type": "gemma3_text",
        **SHAPE,
        "num_hidden_layers": 3,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "sliding_window": 12,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "use_bidirectional_attention": True,
        "tie_word_embeddings": True,
    }


def llama(**over):
    return {"model_type": "llama", **{k: v for k, v in QWEN.items() if k != "head_dim"}, "rope_theta": 10000.0, **over}


def mistral():
    """As E5's: a window that longer texts outgrow."""
    return {**llama(tie_word_embeddings=False), "model_type": "mistral", "head_dim": 8, "sliding_window": 24}


# every row has whole groups of 32
WIDE = {"intermediate_size": 64}

PROMPTS = {"query": "query: ", "document": "title: none | text: "}
POOLINGS = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}

# name → config, architecture, tokenizer, pooling, more
EMBEDDERS = {
    "bert": (bert(), "BertModel", wordpiece, ["mean"], {"poolings": True}),
    "bert-prompts": (bert(hidden_act="gelu_new"), "BertModel", wordpiece, ["cls"], {"prompts": "query"}),
    "xlm-roberta": (xlm(), "XLMRobertaModel", unigram, ["cls"], {}),
    "modernbert": (modern(), "ModernBertModel", bpe_cls, ["mean"], {}),
    "nomic-bert": (nomic(), "NomicBertModel", wordpiece, ["mean"], {"normalize": False}),
    "qwen3-embedding": ({"model_type": "qwen3", **QWEN, "rope_theta": 1000000.0}, "Qwen3Model", bpe_end, ["lasttoken"], {"prompts": None}),
    "qwen2-embedding": ({"model_type": "qwen2", **{k: v for k, v in QWEN.items() if k != "head_dim"}}, "Qwen2Model", bpe_end, ["lasttoken"], {}),
    "embedding-gemma": (gemma3(), "Gemma3TextModel", gemma, ["mean"], {"prompts": "query", "dense": True}),
    "roberta": ({**xlm(), "model_type": "roberta"}, "RobertaModel", bpe_roberta, ["mean"], {}),
    "bge-m3": (xlm(), "XLMRobertaModel", unigram, ["cls"], {"heads": True}),
    "llama-embedding": (llama(), "LlamaModel", bpe_end, ["lasttoken"], {}),
    "mistral-embedding": (mistral(), "MistralModel", gemma, ["lasttoken"], {}),
    "bert-4bit": (bert(**WIDE), "BertModel", wordpiece, ["mean"], {"bits": 4}),
    "modernbert-4bit": (modern(**WIDE), "ModernBertModel", bpe_cls, ["mean"], {"bits": 4}),
    "qwen3-embedding-4bit": ({"model_type": "qwen3", **QWEN, **WIDE}, "Qwen3Model", bpe_end, ["lasttoken"], {"bits": 4}),
    "embedding-gemma-4bit": ({**gemma3(), **WIDE}, "Gemma3TextModel", gemma, ["mean"], {"bits": 4, "dense": True, "mlx": True}),
}

# name → config, architecture, tokenizer
RERANKERS = {
    "bert-reranker": (bert(**LABEL), "BertForSequenceClassification", wordpiece),
    "bert-labels": (bert(**THREE), "BertForSequenceClassification", wordpiece),
    "xlm-roberta-reranker": (xlm(**LABEL), "XLMRobertaForSequenceClassification", unigram),
    "modernbert-reranker": (modern(**LABEL, classifier_pooling="cls"), "ModernBertForSequenceClassification", bpe_cls),
    "modernbert-mean-reranker": (modern(**LABEL, classifier_pooling="mean"), "ModernBertForSequenceClassification", bpe_cls),
    "qwen3-reranker": ({"model_type": "qwen3", **QWEN, "max_position_embeddings": 512}, "Qwen3ForCausalLM", bpe_plain),
    "qwen3-labels-reranker": ({"model_type": "qwen3", **QWEN, "max_position_embeddings": 512, **LABEL}, "Qwen3ForSequenceClassification", bpe_plain),
    "roberta-reranker": ({**xlm(**LABEL), "model_type": "roberta"}, "RobertaForSequenceClassification", bpe_roberta),
    "qwen2-labels-reranker": ({"model_type": "qwen2", **{k: v for k, v in QWEN.items() if k != "head_dim"}, "max_position_embeddings": 512, **LABEL}, "Qwen2ForSequenceClassification", bpe_plain),
    "xlm-roberta-4bit-reranker": (xlm(**LABEL, **WIDE), "XLMRobertaForSequenceClassification", unigram),
    "qwen3-4bit-reranker": ({"model_type": "qwen3", **QWEN, **WIDE, "max_position_embeddings": 512}, "Qwen3ForCausalLM", bpe_plain),
}


def fill(model: torch.nn.Module, seed: int) -> None:
    """Weights that make every part matter."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, value in sorted(model.named_parameters()):
            noise = rng.standard_normal(tuple(value.shape)).astype(np.float32)
            if value.ndim == 1 and name.endswith("weight"):
                base = 0.0 if "Gemma3" in type(model).__name__ else 1.0
                data = base + 0.2 * noise
            elif value.ndim == 1:
                data = 0.2 * noise
            elif "embed" in name:
                data = 0.5 * noise
            else:
                data = 1.3 / np.sqrt(value.shape[-1]) * noise
            value.copy_(torch.from_numpy(np.asarray(data, dtype=np.float32)))


def write_json(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def save_tokenizer(made: tuple[Tokenizer, dict], folder: Path, limit: int) -> None:
    tokenizer, names = made
    data = json.loads(tokenizer.to_str())
    (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n")
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": limit, "clean_up_tokenization_spaces": False, **names},
    )


def quantize(model: torch.nn.Module, bits: int) -> dict:
    """
    As MLX's converters do it to a float16 checkpoint: matrices and embeddings in groups of 32.

    The model gets what the numbers stand for, widened to float32; returned is what is stored.
    """
    import mlx.core as mx

    stored = {}
    with torch.no_grad():
        for name, value in model.named_parameters():
            half = mx.array(value.half().numpy())
            if value.ndim == 2 and value.shape[1] % 32 == 0:
                packed, scales, biases = mx.quantize(half, group_size=32, bits=bits)
                path = name.removesuffix("weight")
                stored |= {name: packed, f"{path}scales": scales, f"{path}biases": biases}
                wide = mx.dequantize(packed, scales.astype(mx.float32), biases.astype(mx.float32), group_size=32, bits=bits)
            else:
                stored[name] = half
                wide = half.astype(mx.float32)
            value.copy_(torch.from_numpy(np.array(wide)))
    return stored


def save_quantized(folder: Path, stored: dict, bits: int) -> None:
    """Replaces the float32 weights that the reference libraries read."""
    import mlx.core as mx

    mx.save_safetensors(str(folder / "model.safetensors"), stored, metadata={"format": "mlx"})
    config = json.loads((folder / "config.json").read_text())
    config |= {"torch_dtype": "float16", "quantization": {"group_size": 32, "bits": bits, "mode": "affine"}}
    write_json(folder / "config.json", config)


def save_model(config: dict, architecture: str, make, folder: Path, seed: int, bits: int = 0) -> tuple[torch.nn.Module, dict]:
    """@returns the model and, if it is to be quantized, what will be stored."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokenizer = make()
    config = {**config, "vocab_size": tokenizer[0].get_vocab_size(), "architectures": [architecture]}
    if "pad_token_id" not in config:
        config["pad_token_id"] = tokenizer[0].token_to_id(tokenizer[1]["pad_token"])
    built = AutoConfig.for_model(**{k: v for k, v in config.items() if k != "architectures"})
    if architecture.endswith("ForSequenceClassification"):
        model = AutoModelForSequenceClassification.from_config(built)
    elif architecture.endswith("ForCausalLM"):
        model = AutoModelForCausalLM.from_config(built)
    elif architecture == "BertModel":
        model = AutoModel.from_config(built, add_pooling_layer=False)
    elif architecture in ("RobertaModel", "XLMRobertaModel"):
        model = AutoModel.from_config(built, add_pooling_layer=False)
    else:
        model = AutoModel.from_config(built)
    model = model.float().eval()
    fill(model, seed)
    stored = quantize(model, bits) if bits else {}
    model.save_pretrained(folder)
    # the config as it is published, not as this version of the library would write it
    write_json(folder / "config.json", {**config, "torch_dtype": "float32"})
    save_tokenizer(tokenizer, folder, config["max_position_embeddings"] - (2 if "roberta" in config["model_type"] else 0))
    return model, stored


def modules_of(*types: str) -> list[dict]:
    paths = {"Transformer": "", "Pooling": "1_Pooling"}
    return [
        {
            "idx": i,
            "name": str(i),
            "path": paths.get(t, f"{i}_{t}"),
            "type": f"sentence_transformers.models.{t}",
        }
        for i, t in enumerate(types)
    ]


def pooling_config(modes: list[str], hidden: int, legacy: bool) -> dict:
    if legacy:
        return {"word_embedding_dimension": hidden, **{flag: mode in modes for mode, flag in FLAGS.items()}, "include_prompt": True}
    return {"embedding_dimension": hidden, "pooling_mode": modes[0] if len(modes) == 1 else modes, "include_prompt": True}


def numbers(rows: np.ndarray) -> str:
    """Little-endian float32."""
    return base64.b64encode(np.ascontiguousarray(rows, dtype="<f4").tobytes()).decode()


def save_heads(folder: Path, hidden: int) -> None:
    """BGE-M3's, as FlagEmbedding saves them and in the published ones' float16."""
    rng = np.random.default_rng(11)
    for name, outputs in [("sparse_linear", 1), ("colbert_linear", COLBERT_WIDTH)]:
        weight = rng.standard_normal((outputs, hidden)).astype(np.float32) / np.sqrt(hidden)
        bias = 0.2 * rng.standard_normal(outputs).astype(np.float32)
        torch.save({"weight": torch.from_numpy(weight).half(), "bias": torch.from_numpy(bias).half()}, folder / f"{name}.pt")


def flag_embedding(folder: Path, texts: list[str]) -> dict:
    """FlagEmbedding's lexical weights and ColBERT vectors."""
    for training in ("datasets", "accelerate", "peft", "ir_datasets", "wandb"):
        sys.modules.setdefault(training, MagicMock(__spec__=None))
    from FlagEmbedding.inference.embedder.encoder_only.m3 import M3Embedder

    model = M3Embedder(str(folder), use_fp16=False, devices="cpu", pooling_method="cls", colbert_dim=COLBERT_WIDTH)
    out = model.encode(texts, batch_size=1, max_length=MAX_TOKENS, return_sparse=True, return_colbert_vecs=True)
    return {
        "lexical_weights": [{k: float(v) for k, v in weights.items()} for weights in out["lexical_weights"]],
        "colbert_width": COLBERT_WIDTH,
        "colbert_vecs": [numbers(rows) for rows in out["colbert_vecs"]],
    }


def embedder(name: str) -> None:
    config, architecture, make, pooling, more = EMBEDDERS[name]
    folder = ROOT / "encoders" / name
    bits = more.get("bits", 0)
    _, stored = save_model(config, architecture, make, folder, seed=sum(map(ord, name)), bits=bits)
    hidden = config["hidden_size"]
    types = ["Transformer", "Pooling"]
    if more.get("dense"):
        from safetensors.torch import save_file

        rng = np.random.default_rng(5)
        for i, (inputs, outputs) in enumerate([(hidden, 64 if bits else 48), (64 if bits else 48, hidden)]):
            path = folder / f"{i + 2}_Dense"
            write_json(path / "config.json", {"in_features": inputs, "out_features": outputs, "bias": False, "activation_function": "torch.nn.modules.linear.Identity"})
            weight = rng.standard_normal((outputs, inputs)).astype(np.float32) / np.sqrt(inputs)
            if bits:
                linear = torch.nn.Linear(inputs, outputs, bias=False)
                linear.weight.data = torch.from_numpy(weight).float()
                stored |= {f"dense.{i}.{key}": value for key, value in quantize(linear, bits).items()}
                weight = linear.weight.detach().numpy()
            save_file({"linear.weight": torch.from_numpy(weight).float()}, path / "model.safetensors")
            types.append("Dense")
    if more.get("normalize", True):
        types.append("Normalize")
    write_json(folder / "modules.json", modules_of(*types))
    legacy = name in ("bert", "xlm-roberta", "nomic-bert")
    write_json(folder / "1_Pooling" / "config.json", pooling_config(pooling, hidden, legacy))
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS, "do_lower_case": False})
    if "prompts" in more:
        write_json(
            folder / "config_sentence_transformers.json",
            {"prompts": PROMPTS, "default_prompt_name": more["prompts"], "similarity_fn_name": "cosine"},
        )
    texts = TEXTS + random_texts(20)
    plain = AutoTokenizer.from_pretrained(folder)
    # only texts that fit: nothing is cut
    texts = [t for t in texts if len(plain(t)["input_ids"]) <= MAX_TOKENS - 12]
    golden = {"texts": texts, "ids": [plain(t)["input_ids"] for t in texts], "cases": []}

    def add(modes: list[str], legacy: bool, prompt: str | None) -> None:
        write_json(folder / "1_Pooling" / "config.json", pooling_config(modes, hidden, legacy))
        model = SentenceTransformer(str(folder), device="cpu")
        kwargs = {} if prompt is None else {"prompt_name": prompt}
        text = model.prompts.get(prompt or model.default_prompt_name, "")
        rows = model.encode(texts, batch_size=1, convert_to_numpy=True, **kwargs)
        golden["cases"].append(
            {
                "pooling": pooling_config(modes, hidden, legacy),
                "prompt": prompt,
                **({"ids": [plain(text + t)["input_ids"] for t in texts]} if text else {}),
                "width": int(rows.shape[1]),
                "vectors": numbers(rows),
            }
        )

    if more.get("poolings"):
        for mode in POOLINGS:
            add([mode], True, None)
            add([mode], False, None)
        add(["cls", "mean", "max"], True, None)
        add(["lasttoken", "mean"], False, None)
    if "prompts" in more:
        for prompt in PROMPTS:
            add(pooling, legacy, prompt)
    add(pooling, legacy, None)  # last: its file stays
    if more.get("heads"):
        save_heads(folder, hidden)
        golden |= flag_embedding(folder, texts)
    if bits:
        save_quantized(folder, stored, bits)
    if more.get("mlx"):
        # MLX's converters leave the folders out and put the matrices into the model's own file
        for path in folder.glob("[0-9]_*"):
            shutil.rmtree(path)
        mlx_names = {f"model.{k}" if not k.startswith("dense") else k: v for k, v in stored.items()}
        save_quantized(folder, mlx_names, bits)
    write_json(ROOT / "golden" / "encoders" / f"{name}.json", golden)


QUERIES = {
    "What is the capital of France?": [
        "Paris is the capital and largest city of France.",
        "Berlin is the capital of Germany.",
        "Bananas are yellow.",
        "a",
        "París es la capital de Francia. 你好，世界。",
        " ".join(["capital"] * 12),
    ],
    "как дела": ["Привет, как дела?", "The weather is fine today.", "def f(x): return x"],
}
SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
INSTRUCT = "Given a web search query, retrieve relevant passages that answer the query"


def reranker(name: str) -> None:
    config, architecture, make = RERANKERS[name]
    folder = ROOT / "encoders" / name
    bits = 4 if "4bit" in name else 0
    model, stored = save_model(config, architecture, make, folder, seed=sum(map(ord, name)), bits=bits)
    if bits:
        save_quantized(folder, stored, bits)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    golden = {"queries": []}
    for query, documents in QUERIES.items():
        ids, scores, logits_of = [], [], []
        for document in documents:
            if config["model_type"].startswith("qwen"):
                encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
                prefix = encode(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n")
                suffix = encode("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
                body = encode(f"<Instruct>: {INSTRUCT}\n<Query>: {query}\n<Document>: {document}")
                tokens = {"input_ids": prefix + body + suffix}
            else:
                tokens = tokenizer(query, document)
            inputs = {k: torch.tensor([v]) for k, v in tokens.items() if k != "attention_mask"}
            if "roberta" in name:
                inputs.pop("token_type_ids", None)
            if config["model_type"] in ("modernbert", "qwen2", "qwen3"):
                inputs.pop("token_type_ids", None)
            with torch.no_grad():
                logits = model(**inputs).logits
            if architecture.endswith("ForCausalLM"):
                pair = [tokenizer.convert_tokens_to_ids(t) for t in ("no", "yes")]
                assert None not in pair and tokenizer.unk_token_id not in pair, pair
                score = torch.softmax(logits[0, -1, pair], -1)[1]
            elif logits.shape[-1] == 1:
                score = torch.sigmoid(logits[0, 0])
            else:
                score = torch.softmax(logits[0], -1)[-1]
            ids.append(tokens["input_ids"])
            scores.append(float(score))
        golden["queries"].append({"query": query, "documents": documents, "ids": ids, "scores": scores})
    write_json(ROOT / "golden" / "encoders" / f"{name}.json", golden)


def charsmap() -> None:
    """What the tokenizers library makes of odd texts by the compiled rules of XLM-RoBERTa's normalizer."""
    tokenizer = Tokenizer.from_file(str(ROOT / "encoders" / "xlm-roberta" / "tokenizer.json"))
    rng = random.Random(3)
    blocks = [(0x1, 0x7F), (0x80, 0x250), (0x300, 0x370), (0x5D0, 0x700), (0x900, 0xE80), (0x1100, 0x1200), (0x2000, 0x2070)]
    blocks += [(0x20A0, 0x2400), (0x3000, 0x3400), (0xAC00, 0xAD00), (0xF900, 0xFB50), (0xFE00, 0x10000), (0x1D400, 0x1D500), (0x1F300, 0x1F700)]
    texts = [
        "e\u0301 a\u0323\u0302 \u1112\u1161\u11ab q\u0307\u0323",
        "\r\n\t a\u00a0b\u200bc\u200dd\u061ce \ufeff\u2581",
        "👩\u200d👩\u200d👧🏽 ⅷ ㎏ ﬁ ＡＢＣ ～ ｶﾞ ㍿ ﷺ",
        "\u0600123 \u0e33 ก\u0e33 नि क्षि",
    ]
    texts += ["".join(chr(rng.randrange(*rng.choice(blocks))) for _ in range(40)) for _ in range(160)]
    # normalizers after this one only join blanks
    only = normalizers.Sequence([tokenizer.normalizer])
    write_json(ROOT / "golden" / "encoders" / "charsmap.json", {"texts": texts, "normalized": [only.normalize_str(t) for t in texts]})


def main() -> None:
    if sys.argv[1:] == ["charsmap"]:
        return charsmap()
    names = sys.argv[1:] or [*EMBEDDERS, *RERANKERS]
    for name in names:
        (embedder if name in EMBEDDERS else reranker)(name)
        size = sum(p.stat().st_size for p in (ROOT / "encoders" / name).rglob("*") if p.is_file())
        print(f"{name}: {size / 1e3:.0f} kB")


main()
