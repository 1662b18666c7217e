#!/usr/bin/env bash
# What a GPU makes of a backend (BACKEND: webgpu or cuda), beside llama.cpp where its libraries are given: an 8B, a 1B and a 30B-A3B model in Q4_K
# with random weights (23 GB of files, made once in the user's cache).
#
#     benchmarks/h100.sh [DIRECTORY]
#
# DIRECTORY: llama.cpp's libraries, for example of `npm pack @node-llama-cpp/linux-x64-vulkan`, unpacked.
# PYTHON: a Python with Lacewing and the package gguf. MODELS: files, or other names that `python -m benchmarks.models` knows.
# PROMPT, GENERATE, ROUNDS: other sizes, for a slower GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
backend=${BACKEND:-webgpu} prompt=${PROMPT:-512} generate=${GENERATE:-64}
peer=()
if [ $# -gt 0 ]; then peer=(--peer "$(realpath "$1")"); fi
mapfile -t files < <("$python" -m benchmarks.models ${MODELS:-llama-8b llama-1b qwen3moe-30b-a3b})
[ ${#files[@]} -gt 0 ] || exit 1
"$python" -m lacewing backends
"$python" -m benchmarks.gpu "${files[@]}" ${peer[@]+"${peer[@]}"} --prompt "$prompt" --generate "$generate" --rounds "${ROUNDS:-5}" \
  --backend "$backend" --kernels
for file in "${files[@]}"; do
  "$python" -m lacewing bench "$file" --backend "$backend" --prompt "$prompt" --generate "$generate" --profile
done
