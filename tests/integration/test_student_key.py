"""A run folder whose inputs changed under the same options keeps nothing old in silence; runs share students."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from spd_lightning.cli.program import main
from spd_lightning.finetuning.module import SPDFineTuningModule
from spd_lightning.pipeline import stages
from tests.integration.test_cli_fit import SETTINGS
from tests.settings import in_file

FAST = in_file([*SETTINGS, "--evaluation.tasks=[letters]", "--evaluation.methods=[student]", "--evaluation.limit=2"])


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "mine.jsonl"
    lines = [{"prompt": f"{i} + {i} = ", "target": str(2 * i), "split": "train"} for i in range(12)]
    lines += [{"prompt": "1 + 2 = ", "target": "3", "split": "test"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")


def command(model: str, run: Path, *options: str) -> list[str]:
    return ["fit", f"--subspace.model_name_or_path={model}", f"--run_dir={run}", *FAST, *options]


@pytest.fixture(scope="module")
def finished(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        run = tmp_path_factory.mktemp("runs") / "run"
        assert main(command(tiny_model_dir, run, "--data.method=ssd")) == 0
    return run


def copy_of(run: Path, tmp_path: Path) -> Path:
    """The run and its store elsewhere, so that a test may spoil them."""
    shutil.copytree(run.parent, tmp_path / "copy")
    return tmp_path / "copy" / run.name


def tree(run: Path) -> dict[str, bytes]:
    return {p.relative_to(run).as_posix(): p.read_bytes() for p in run.rglob("*") if p.is_file()}


def results(run: Path) -> dict[str, bool]:
    return {row["stage"]: row["skipped"] for row in json.loads((run / "results.json").read_text())["stages"]}


def trained(run: Path) -> list[dict[str, Any]]:
    """What the results say of the training's health."""
    rows = [row for row in json.loads((run / "results.json").read_text())["health"] if row["stage"] == "fine_tune"]
    assert rows
    return rows


def test_other_data_under_the_same_options_is_refused_and_changes_nothing(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GSM8K's rows from a folder whose file is another one the second time."""
    data = tmp_path / "data"
    (data / "gsm8k").mkdir(parents=True)

    def write(first: int) -> None:
        lines = [{"question": f"{i} + {i}?", "answer": f"so\n#### {2 * i}"} for i in range(first, first + 12)]
        for split in ("train", "test"):
            (data / "gsm8k" / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    run = tmp_path / "runs" / "run"
    args = command(tiny_model_dir, run, "--subspace.task=gsm8k", f"--data_dir={data}", "--data.method=spd")
    write(0)
    assert main(args) == 0
    before = tree(run)
    write(100)
    capsys.readouterr()
    assert main(args) == 2
    assert "examples: '" in (error := capsys.readouterr().err) and "Set --run_dir to a new folder" in error
    assert tree(run) == before
    args[2] = f"--run_dir={run.parent / 'other'}"
    assert main(args) == 0 and not any(results(run.parent / "other")[s] for s in ("generate", "fine_tune"))


def test_another_file_under_the_same_subspace_path_is_refused(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tmp_path / "runs" / name for name in ("one", "two")]
    for run, seed in zip(runs, (1, 2)):
        extract = ["--subspace.basis=random", f"--seed_everything={seed}"]
        args = [
            "extract",
            f"--subspace.model_name_or_path={tiny_model_dir}",
            f"--run_dir={run}",
            *in_file(SETTINGS),
            *extract,
        ]
        assert main(args) == 0
    file = tmp_path / "subspace.safetensors"
    shutil.copyfile(runs[0] / "subspace" / "subspace.safetensors", file)
    args = command(tiny_model_dir, tmp_path / "runs" / "fit", f"--data.subspace={file}")
    assert main(args) == 0
    before = tree(tmp_path / "runs" / "fit")
    shutil.copyfile(runs[1] / "subspace" / "subspace.safetensors", file)
    capsys.readouterr()
    assert main(args) == 2
    assert "holds a run made from another subspace (file: '" in capsys.readouterr().err
    assert tree(tmp_path / "runs" / "fit") == before


def test_another_version_of_the_task_is_refused(
    finished: Path, tiny_model_dir: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from spd_lightning.tasks.arithmetic import Arithmetic

    before = tree(finished)
    monkeypatch.setattr(Arithmetic, "version", Arithmetic.version + 1)
    assert main(command(tiny_model_dir, finished, "--data.method=ssd")) == 2
    assert "task_version: " in capsys.readouterr().err and tree(finished) == before


def test_weights_that_were_changed_are_refused(
    finished: Path, tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(finished, tmp_path)
    weights = run / "adapter" / "adapter_model.safetensors"
    save_file({name: value + 1 for name, value in load_file(weights).items()}, weights)
    assert main(command(tiny_model_dir, run, "--data.method=ssd")) == 2
    assert "are not those that were trained" in capsys.readouterr().err
    shutil.rmtree(run / "adapter")
    assert main(command(tiny_model_dir, run, "--data.method=ssd")) == 0
    assert (run / "adapter" / "adapter_model.safetensors").read_bytes() == (
        finished / "adapter" / "adapter_model.safetensors"
    ).read_bytes()
    (run / "keys.json").write_text("{}")
    assert main(command(tiny_model_dir, run, "--data.method=ssd")) == 2
    assert "keys.json was changed by hand since the run ended" in capsys.readouterr().err
    (run / "manifest.json").unlink()  # as after a command that was killed
    assert main(command(tiny_model_dir, run, "--data.method=ssd")) == 2
    assert "holds a student without a record" in capsys.readouterr().err


def test_runs_share_students_and_a_damaged_one_is_made_again(
    finished: Path, tiny_model_dir: str, tmp_path: Path
) -> None:
    run = copy_of(finished, tmp_path)
    other = run.parent / "other"
    assert main(command(tiny_model_dir, other, "--data.method=ssd")) == 0
    assert results(other) == {"generate": True, "fine_tune": True, "evaluate": True}
    assert trained(other) == trained(run), "what is known of a student is kept with it"
    weights = "adapter/adapter_model.safetensors"
    assert (other / weights).read_bytes() == (run / weights).read_bytes()
    stored = next((run.parent / ".artifacts").glob("student-*/student/adapter_model.safetensors"))
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    assert (other / weights).read_bytes() == (run / weights).read_bytes(), "a run's copy is its own"
    third = run.parent / "third"
    assert main(command(tiny_model_dir, third, "--data.method=ssd")) == 0
    assert results(third) == {"generate": True, "fine_tune": False, "evaluate": True}
    assert (third / weights).read_bytes() == (run / weights).read_bytes()


def test_a_stop_between_the_last_step_and_the_student(
    tiny_model_dir: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint has nothing left to train, and knows what was read."""
    run = tmp_path / "run"

    def stop(*_: Any) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(stages, "save_student", stop)
        main(command(tiny_model_dir, run, "--data.method=ssd"))
    assert main(command(tiny_model_dir, run, "--data.method=ssd")) == 0
    weights = "adapter/adapter_model.safetensors"
    assert (run / weights).read_bytes() == (finished / weights).read_bytes()
    assert trained(run) == trained(finished)


def test_another_learning_rate_is_another_student(finished: Path, tiny_model_dir: str, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path).parent / "other"
    assert main(command(tiny_model_dir, run, "--data.method=ssd", "--model.learning_rate=0.002")) == 0
    assert results(run) == {"generate": True, "fine_tune": False, "evaluate": False}


def test_a_checkpoint_that_is_not_there_is_refused_on_a_finished_run_too(
    finished: Path, tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(finished)
    for run in (finished, tmp_path / "new"):
        assert main(command(tiny_model_dir, run, "--data.method=ssd", "--ckpt_path=no/such/file")) == 2
        assert "ckpt_path=no/such/file: there is no such file" in capsys.readouterr().err
    assert tree(finished) == before and not (tmp_path / "new").exists()


def test_the_last_checkpoint_of_another_student_is_refused_by_name(
    finished: Path, tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(finished, tmp_path)
    shutil.rmtree(run / "adapter")
    shutil.rmtree(next((run.parent / ".artifacts").glob("student-*")))
    last = run / "checkpoints" / "last.ckpt"
    content: dict[str, Any] = torch.load(last, weights_only=True)
    recipe = json.loads(content["spd"]["recipe"])
    content["spd"]["recipe"] = json.dumps({**recipe, "corpus": "0" * 64})
    torch.save(content, last)
    args = command(tiny_model_dir, run, "--data.method=ssd")
    assert main(args) == 2
    assert "is a checkpoint of another student (corpus: '000000000000...' there" in capsys.readouterr().err
    last.unlink()
    assert main(args) == 0


def test_an_interrupted_run_from_a_checkpoint_goes_on_where_it_stopped(
    finished: Path, tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Not from the file that the same command names again."""
    start = tmp_path / "start.ckpt"  # 3 of 9 steps
    shutil.copyfile(finished / "checkpoints" / "last.ckpt", start)
    run = copy_of(finished, tmp_path).parent / "long"
    args = command(tiny_model_dir, run, "--data.method=ssd", "--trainer.max_epochs=3", f"--ckpt_path={start}")
    real = SPDFineTuningModule.training_step

    def stop(self: Any, *rest: Any) -> Any:
        if self.trainer.global_step == 7:
            raise RuntimeError("power cut")
        return real(self, *rest)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(SPDFineTuningModule, "training_step", stop)
        main(args)
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6
    with caplog.at_level("INFO"):
        assert main(args) == 0
    assert "Continuing from optimiser step 6 of 9" in caplog.text
    assert main(args) == 0 and results(run)["fine_tune"] is True
