"""A corpus that is interrupted anywhere, and goes on with any number of processes, has the bytes of a straight run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from spd_lightning.generation.corpus import Corpus
from spd_lightning.generation.engine import generate
from spd_lightning.generation.requests import Generation, build_requests
from spd_lightning.generation.sampling import SamplingParams
from tests.conftest import byte_tokenizer, tiny_model

PARAMS = SamplingParams(max_new_tokens=24, temperature=0.8, top_p=0.95)


def run(folder: Path, rank: int = 0, world_size: int = 1, stop_after: int | None = None, dtype=torch.float32) -> None:  # type: ignore[no-untyped-def]
    """One process's share of 30 completions in batches of 4; dies before batch ``stop_after`` is written."""
    tokenizer, model = byte_tokenizer(), tiny_model().to(dtype)
    requests, _ = build_requests(tokenizer, [(f"train/{i}", "x" * (1 + i % 9)) for i in range(15)], 2)
    corpus = Corpus(folder, "f1")
    written = 0

    def write(batch: list[Generation]) -> None:
        nonlocal written
        if written == stop_after:
            raise KeyboardInterrupt
        corpus.append([g.record() for g in batch], rank)
        written += 1

    generate(model, tokenizer, requests, PARAMS, 4, None, rank, world_size, write, corpus.finished())
    if rank == world_size - 1:
        corpus.finalise(requests)
        corpus.remove_parts()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_interrupted_corpus_has_the_bytes_of_a_straight_one(tmp_path: Path, dtype: torch.dtype) -> None:
    run(tmp_path / "straight", dtype=dtype)
    expected = (tmp_path / "straight" / "generations.jsonl").read_bytes()
    assert expected.count(b"\n") == 30
    for point in range(3):
        folder = tmp_path / f"resumed-{point}"
        with pytest.raises(KeyboardInterrupt):
            run(folder, stop_after=point, dtype=dtype)
        for part in folder.glob("part-*.jsonl"):  # and the last write was torn, in the middle of a batch
            os.truncate(part, part.stat().st_size - 300)
        with pytest.raises(KeyboardInterrupt):
            run(folder, rank=1, world_size=3, stop_after=1, dtype=dtype)
        for rank in range(2):
            run(folder, rank, 2, dtype=dtype)
        assert (folder / "generations.jsonl").read_bytes() == expected
        assert [p.name for p in folder.iterdir()] == ["generations.jsonl"]


WORKER = """
import sys
from spd_lightning.generation.corpus import Corpus
from spd_lightning.generation.engine import generate
from spd_lightning.generation.requests import build_requests
from spd_lightning.generation.sampling import SamplingParams
from spd_lightning.model.load import load_model, load_tokenizer
import torch

model_dir, folder, rank, world_size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
model, tokenizer = load_model(model_dir, torch.float32), load_tokenizer(model_dir)
requests, _ = build_requests(tokenizer, [(f"train/{i}", "Question " + "x" * (i % 40)) for i in range(150)])
corpus = Corpus(folder, "f1")
params = SamplingParams(max_new_tokens=40, temperature=0.8, top_p=0.95)
finished = corpus.finished()
print("ready", corpus.torn, flush=True)
write = lambda batch: corpus.append([g.record() for g in batch], rank)
generate(model, tokenizer, requests, params, 3, None, rank, world_size, write, finished)
if "finalise" in sys.argv:
    corpus.finalise(requests)
    corpus.remove_parts()
"""


def start(model_dir: str, folder: Path, rank: int = 0, world_size: int = 1, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, model_dir, str(folder), str(rank), str(world_size), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def size_of(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.glob("part-*.jsonl"))


@pytest.mark.slow
def test_killed_at_many_random_points(tmp_path: Path, tiny_model_dir: str) -> None:
    straight = tmp_path / "straight"
    with start(tiny_model_dir, straight, 0, 1, "finalise") as process:
        assert process.wait(timeout=300) == 0
    expected = (straight / "generations.jsonl").read_bytes()
    batch_bytes = len(expected) // 50  # 50 batches of three

    folder, chance, torn = tmp_path / "killed", random.Random(1), 0
    for kill in range(12):
        world_size = 1 + kill % 2
        workers = [start(tiny_model_dir, folder, rank, world_size) for rank in range(world_size)]
        for worker in workers:
            assert worker.stdout is not None
            torn += int(worker.stdout.readline().split()[1])
        limit = size_of(folder) + chance.random() * 2.5 * batch_bytes
        while size_of(folder) < limit and all(w.poll() is None for w in workers):
            time.sleep(0.001)
        time.sleep(chance.random() * 0.2)
        for worker in workers:
            with worker:
                assert worker.poll() is None, "the worker ended before it could be killed: give it more to do"
                worker.send_signal(signal.SIGKILL)
                assert worker.wait() == -signal.SIGKILL
        if kill % 3 == 0:  # a write that the disk saw only a part of
            for part in folder.glob("part-*.jsonl"):
                os.truncate(part, part.stat().st_size - chance.randrange(1, 400))
    assert torn > 0, "no torn line was seen"

    for rank in range(2):
        with start(tiny_model_dir, folder, rank, 2, *["finalise"][1 - rank :]) as process:
            assert process.wait(timeout=300) == 0
    assert (folder / "generations.jsonl").read_bytes() == expected
    assert [p.name for p in folder.iterdir()] == ["generations.jsonl"]
