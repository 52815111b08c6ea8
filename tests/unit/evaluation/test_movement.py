"""What the store knows a measured movement by, and which texts count. What is measured: `test_divergence.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.evaluation import movement
from spd_lightning.evaluation.continuations import LikelihoodItem, Work, tokenise, work_of_tokens
from spd_lightning.evaluation.models import Base
from spd_lightning.finetuning.texts import TrainingText


@pytest.fixture
def measure(tmp_path: Path, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`_divergences` of texts, with a number that tells each measurement from the one before."""
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    done: list[Any] = []
    monkeypatch.setattr(movement, "load_student", lambda *a: None)
    monkeypatch.setattr(movement, "all_weights_trained", lambda adapter: False)
    monkeypatch.setattr(movement, "text_divergences", lambda student, work, other: done.append(work))
    monkeypatch.setattr(movement, "summary", lambda found: {"measured": len(done)})
    base = Base(tiny_model_dir, torch.float32, torch.device("cpu"))

    class Suite:
        class context:
            store = ArtifactStore(tmp_path / "store")

    return lambda work: movement._divergences(base, tmp_path / "adapter", {"held_out": work}, Suite)["held_out"]


def test_texts_that_differ_in_their_last_token_alone_are_measured_each(measure: Any) -> None:
    first = measure([work_of_tokens("a", (1, 2, 3), (4, 5))])
    assert measure([work_of_tokens("a", (1, 2, 3), (4, 5))]) == first == {"measured": 1}
    assert measure([work_of_tokens("a", (1, 2, 3), (4, 6))]) == {"measured": 2}, "another last token"
    assert measure([work_of_tokens("a", (1, 2, 3, 4), (5,))]) == {"measured": 3}, "another first token read"


def test_so_are_questions_with_another_right_letter(measure: Any, tokenizer: Any) -> None:
    def work(letter: str) -> list[Work]:
        return tokenise(tokenizer, [LikelihoodItem("a", "Which? Answer:", (letter,))], None)

    assert [measure(work(letter)) for letter in (" A", " B", " A")] == [{"measured": n} for n in (1, 2, 1)]


def test_a_text_that_is_repeated_in_training_is_one_text(monkeypatch: pytest.MonkeyPatch, tiny_model_dir: str) -> None:
    """A rule that keeps 5 of 40 completions repeats each 8 times; intervals over texts are of 5."""
    texts = [TrainingText(f"train/{i}:0", (1, 2, i + 3), (7, 8)) for i in range(5)]
    base = Base(tiny_model_dir, torch.float32, torch.device("cpu"))

    class Suite:
        class context:
            adapter, method = "adapter", "filtered"

        @staticmethod
        def base(now: Any) -> Base:
            return base

        final = benchmarks = staticmethod(lambda: [])

    counted: dict[str, Any] = {"held_out": None}
    monkeypatch.setattr(
        movement, "_divergences", lambda base, adapter, sets, suite: counted | {"corpus": {"ids": sets["corpus"]}}
    )
    found = movement.measure_movement(Suite, None, texts * 8)  # type: ignore[arg-type]
    assert found is not None and [w.item.id for w in found["corpus"]["ids"]] == [text.id for text in texts]
    assert found["corpus"]["of"] == "5 completions that it was trained on"
