#!/usr/bin/env bash
# The GPU measurements, in under 8 minutes on one GPU, on random weights of real shapes (no download).
#   bash experiments/benchmarks/gpu.sh [OUT]
# Untried so far: no GPU was at hand when it was written.
set -euo pipefail
cd "$(dirname "$0")/../.."
out="${1:-gpu-results}"
mkdir -p "$out"
python="${PYTHON:-python3}"
nvidia-smi --query-gpu=name,memory.total --format=csv | tee "$out/gpu.txt"
timeout 120 "$python" -m pytest -q -m gpu tests 2>&1 | tee "$out/tests.txt" || true
timeout 300 "$python" -m experiments.benchmarks extraction --part gpu 2>&1 | tee "$out/extraction.txt"
