#!/usr/bin/env bash
# Gets the programs that bench/ compares with into .cache/peers (or OMLX_BUILD_CACHE/peers):
#   scripts/peers.sh [llama] [mlx]      both if none is named
#   llama  llama.cpp, built for this machine's CPU from the source inside llama-cpp-python's source package
#   mlx    mlx-lm and MLX's CPU backend in a virtual environment
# JOBS: compilers at a time (default: all cores). Needs python3, CMake and a C++ compiler. What is there already is kept.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
peers=${OMLX_BUILD_CACHE:-$root/.cache}/peers
jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN)}

llama_version=0.3.36
llama_sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
mlx_packages=(mlx-lm==0.32.2 mlx==0.32.4 mlx-cpu==0.32.4)

say() { printf '%s\n' "$*" >&2; }

venv() { # name packages...
  local folder=$peers/$1
  shift
  [ -x "$folder/bin/python" ] || python3 -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

# The unpacked source package; pip asks its build backend for metadata even to download it.
fetch_llama() {
  local target=$peers/llama-source work
  [ -d "$target" ] && return
  work=$(mktemp -d "$peers/fetch-XXXXXX")
  venv build scikit-build-core
  printf 'llama-cpp-python==%s --hash=sha256:%s\n' "$llama_version" "$llama_sha256" > "$work/requirements.txt"
  "$peers/build/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
    --no-binary :all: --no-build-isolation --dest "$work" --requirement "$work/requirements.txt"
  tar -xzf "$work"/llama_cpp_python-*.tar.gz -C "$work"
  # GCC 12 drops the stores into the tile configuration that come before its own load: the first tile instruction dies.
  sed -i 's/^\( *\)\(_tile_loadconfig(&tc);\)/\1asm volatile("" ::: "memory"); \2/' \
    "$work"/llama_cpp_python-*/vendor/llama.cpp/ggml/src/ggml-cpu/amx/mmq.cpp
  mv "$work"/llama_cpp_python-*/vendor/llama.cpp "$target"
  rm -rf "$work"
}

build_llama() { # folder compiler-flags
  local target=$peers/$1 flags=$2
  if [ -x "$target/bin/llama-batched-bench" ] && [ -x "$target/bin/llama-server" ]; then return; fi
  say "building $1 with $jobs job(s)"
  cmake -S "$peers/llama-source" -B "$target" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_TOOLS=ON \
    -DCMAKE_C_FLAGS="$flags" -DCMAKE_CXX_FLAGS="$flags" > "$peers/$1.log" 2>&1
  cmake --build "$target" --parallel "$jobs" --target llama-server llama-bench llama-batched-bench \
    >> "$peers/$1.log" 2>&1
}

llama() {
  fetch_llama
  build_llama llama.cpp ""
  # for runs with --tier, which leave AMX aside in our kernels
  if grep -qs amx_tile /proc/cpuinfo; then
    build_llama llama.cpp-without-amx "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
  fi
  say "llama.cpp is in $peers/llama.cpp/bin"
}

mlx() {
  venv venv "${mlx_packages[@]}"
  say "mlx-lm is in $peers/venv"
}

mkdir -p "$peers"
[ $# -gt 0 ] || set -- llama mlx
for peer in "$@"; do
  case $peer in
    llama | mlx) "$peer" ;;
    *)
      say "unknown peer $peer: llama, mlx"
      exit 1
      ;;
  esac
done
