"""What the processes of a run tell each other; how they end is in tests/unit/cli/test_lifetime.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch.utilities

from spd_lightning import processes
from spd_lightning.finetuning.datamodule import SelfGenerationDataModule
from spd_lightning.generation.module import SelfGenerationModule
from spd_lightning.generation.recipe import pending_batches


def test_one_process_agrees_with_itself_and_does_not_wait() -> None:
    assert processes.agree({"a": 1}) == {"a": 1} and processes.gather([1]) == [[1]]
    assert processes.world_size() == 1
    processes.barrier()


def test_the_rank_is_the_one_that_lightning_sets_and_lightning_is_not_needed() -> None:
    """lightning-utilities 0.15.3 holds the object to which Lightning 2.6.6 gives the rank."""
    assert processes.rank_zero_only is lightning.pytorch.utilities.rank_zero_only
    program = (
        "import sys, spd_lightning.processes as p; assert p.rank() == 0 and 'lightning.pytorch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_ready_batches_are_given_in_order_as_often_as_asked() -> None:
    loader = processes.Batches([[1], [2, 3]], make=sum)
    assert len(loader) == 2 and [list(loader) for _ in range(2)] == [[1, 5], [1, 5]]


def test_what_is_left_of_a_corpus_is_dealt_out_evenly(tiny_model_dir: str, tmp_path: Path) -> None:
    """Also where all that was finished had been dealt to one process; a process without a share gets an empty batch."""
    data = SelfGenerationDataModule(
        tiny_model_dir,
        task="arithmetic",
        method="ssd",
        num_prompts=8,
        batch_size=2,
        max_prompt_length=1024,
        max_new_tokens=4,
        corpus_dir=str(tmp_path),
    )
    corpus = data.corpus()
    batches = pending_batches(data.recipe, corpus)
    assert len(batches) == 4
    corpus.append([{"id": r.id, "sample": r.sample} for r in (*batches[0], *batches[2])])
    assert [pending_batches(data.recipe, corpus, rank, 2) for rank in (0, 1)] == [[batches[1]], [batches[3]]]
    before = sorted(p.read_bytes() for p in tmp_path.iterdir())
    module = SelfGenerationModule(data.recipe, corpus)
    module.trainer = SimpleNamespace(global_rank=2, world_size=3)  # type: ignore[assignment]
    assert list(module.predict_dataloader()) == [[]]
    module.configure_model()
    assert module.generate([], 2) == []
    assert sorted(p.read_bytes() for p in tmp_path.iterdir()) == before
