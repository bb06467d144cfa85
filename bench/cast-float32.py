"""Copies an MLX model folder with every 16-bit float tensor as float32: cast-float32.py FROM TO"""

import shutil
import sys
from pathlib import Path

import mlx.core as mx

source, target = map(Path, sys.argv[1:])
for file in source.iterdir():
    if file.suffix != ".safetensors":
        shutil.copy(file, target)
        continue
    tensors = mx.load(str(file))
    cast = {
        name: t.astype(mx.float32) if t.dtype in (mx.float16, mx.bfloat16) else t
        for name, t in tensors.items()
    }
    mx.save_safetensors(str(target / file.name), cast, metadata={"format": "mlx"})
