"""Every stage on two examples, whatever the options say, and nothing is left."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from spd_lightning.cli.parser import make_parser
from spd_lightning.cli.program import main
from spd_lightning.pipeline.dry_run import removed, shorten


def test_every_stage_gets_two_examples() -> None:
    options = make_parser().parse_args(
        ["fit", "--data.method=filtered", "--data.num_prompts=9", "--evaluation.limit=7"]
    )
    shorten(options.fit)
    found = options.fit
    assert (found.subspace.num_examples, found.data.num_prompts, found.evaluation.limit) == (2, 2, 2)
    assert (found.data.method, found.data.max_new_tokens, found.trainer.max_epochs) == ("ssd", 16, 1)


def test_the_folder_and_empty_ones_above_it_go(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / ".dry-run-1"
    with pytest.raises(ValueError, match="no"), removed(folder):
        folder.mkdir(parents=True)
        raise ValueError("no")
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    with removed(tmp_path / "mine" / ".dry-run-1"):
        (tmp_path / "mine" / ".dry-run-1").mkdir()
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]


def test_a_whole_dry_run_leaves_nothing(
    tiny_model_dir: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["fit", f"--subspace.model_name_or_path={tiny_model_dir}", "--subspace.max_length=1024"]
    args += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--evaluation.limit=100"]
    with caplog.at_level("INFO"):
        assert main([*args, "--evaluation.tasks=[letters, arithmetic]", "--dry_run"]) == 0
    assert "Dry run: every stage worked on 2 examples" in caplog.text
    table = capsys.readouterr().out
    assert table.count("   2  ") >= 2, "two of every benchmark, whatever the limit says"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_dry_run_of_the_embedded_model_takes_less_than_a_minute(
    smollm2: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    start = time.process_time()
    assert main(["fit", "--config=demo", "--dry_run", "--trainer.enable_progress_bar=false"]) == 0
    assert time.process_time() - start < 60, "seconds of one core: a busy machine takes longer"
    assert not list(tmp_path.iterdir())
