"""Stage 1 against a plain forward pass: the path of the GPU measurement, tried on a CPU, asserted on a GPU."""

import pytest
import torch
import transformers

from experiments.benchmarks.extraction import against_forward, gpu, main
from tests.conftest import TINY


def test_the_gpu_measurement_runs_on_a_cpu():
    config = transformers.Qwen2Config(**TINY)
    assert against_forward(config, "cpu", torch.bfloat16, count=5, length=12, repeats=1) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU prints what it would measure")
def test_without_a_gpu_it_says_so(capsys):
    main(["--part", "gpu"])
    assert "No GPU here" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with 24 GB (run experiments/benchmarks/gpu.sh)")
def test_extraction_takes_at_most_one_and_a_half_forward_passes(capsys):
    import argparse

    gpu(argparse.Namespace(quick=False, repeats=3))
    assert float(capsys.readouterr().out.split("takes ")[1].split()[0]) <= 1.5
