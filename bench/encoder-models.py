"""What bench/embeddings.ts measures beside MiniLM itself, made from its folder: SOURCE TARGET LLAMA_SOURCE.

TARGET/reranker: a classifier of MiniLM's size, its head random. TARGET/minilm-f32.gguf: MiniLM for llama.cpp, by its own converter.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

source, target, llama = map(Path, sys.argv[1:4])
target.mkdir(parents=True, exist_ok=True)

torch.manual_seed(1)
model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1)
model.save_pretrained(target / "reranker")
AutoTokenizer.from_pretrained(source).save_pretrained(target / "reranker")

# the folder under a name of its own: the converter writes it into the file
named = target / "all-MiniLM-L6-v2"
shutil.rmtree(named, ignore_errors=True)
shutil.copytree(source, named)
subprocess.run(
    [sys.executable, llama / "convert_hf_to_gguf.py", named, "--outtype", "f32", "--outfile", target / "minilm-f32.gguf"],
    env={**os.environ, "PYTHONPATH": str(llama / "gguf-py")},
    check=True,
    stdout=sys.stderr,
)
shutil.rmtree(named)
