#!/usr/bin/env bash
# The GPU measurements, in under 8 minutes on one GPU with 80 GB, on random weights of real shapes (no download).
#   bash experiments/benchmarks/gpu.sh [OUT [options of the benchmark, e.g. --device cpu --quick]]
# The same code runs on a CPU at a tiny size in tests/integration/test_gpu_benchmark.py.
set -euo pipefail
cd "$(dirname "$0")/../.."
out="${1:-gpu-results}"
shift || true
mkdir -p "$out"
python="${PYTHON:-python3}"
if command -v nvidia-smi > /dev/null; then
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv | tee "$out/gpu.txt"
fi
status=0
timeout 150 "$python" -m pytest -v -m gpu tests 2>&1 | tee "$out/tests.txt" || status=$?
timeout 300 "$python" -m experiments.benchmarks gpu --json "$out/gpu.json" "$@" 2>&1 | tee "$out/benchmarks.txt" || status=$?
exit "$status"
