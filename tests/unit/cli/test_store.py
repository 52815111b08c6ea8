"""``artifacts list``: of which model and task each artifact is, and which runs use it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.cli import start
from spd_lightning.cli.store import Owners
from tests.unit.artifacts.test_runs import begun


def test_a_folder_that_is_no_store_is_not_called_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``artifacts check --artifact_dir runs`` said "0 artifacts, none damaged"."""
    (tmp_path / "runs" / ".artifacts").mkdir(parents=True)
    for action in ("list", "check", "prune"):
        assert start.main(["artifacts", action, "--artifact_dir", str(tmp_path / "runs")]) == 2
        told = f"holds no artifact, so it is no store. Did you mean {tmp_path}/runs/.artifacts? Set --artifact_dir"
        assert told in capsys.readouterr().err
        assert start.main(["artifacts", action, "--artifact_dir", str(tmp_path / "runs" / ".artifacts")]) == 0
        assert capsys.readouterr().out == f"No artifact in {tmp_path}/runs/.artifacts.\n"


def test_artifacts_say_what_they_are_of_and_who_uses_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = "a" * 64
    store = ArtifactStore(tmp_path / ".artifacts")
    keys = {
        "moments": {"model": model, "task": "gsm8k"},
        "subspace": {"moments": {"model": model, "task": "gsm8k"}, "rank": 4},
        "student": {"base": model, "model": {"lora_r": 8}},
        "scores": {"model": "b" * 64, "task": "svamp"},
    }
    for stage, key in keys.items():
        store.complete(store.folder(stage, key), key)
    (store.root / "corpus-0123").mkdir()
    for name in ("one", "two"):
        run = begun(tmp_path / name, "/models/tiny-llama")
        run.environment_file.write_text(json.dumps({"content": {"model": model}}))
        run.note_artifacts([p for p in store.used() if not p.startswith("scores") and (name == "one" or "mom" in p)])
    assert start.main(["artifacts", "list", "--artifact_dir", str(store.root)]) == 0
    said = {line.split()[0]: line.split(" days  ")[1] for line in capsys.readouterr().out.splitlines()}
    assert said == {
        "corpus": "-  -  no run",
        "moments": "tiny-llama  gsm8k  one, two",
        "subspace": "tiny-llama  gsm8k  one",
        "student": "tiny-llama  arithmetic  one",
        "scores": "bbbbbbbbbbbb  svamp  no run",
    }
    mixed = {"moments": {name: {"model": model, "task": name} for name in ("gsm8k", "mmlu")}, "rank": 4}
    for key in (mixed, {"model": model, "task": ["gsm8k", "mmlu"]}):  # a subspace and a corpus of two tasks
        assert Owners(tmp_path).describe("another", key) == "tiny-llama  gsm8k + mmlu  no run"


def test_a_run_uses_what_was_asked_for_and_is_whole(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    made, begun_only = store.folder("moments", {"a": 1}), store.folder("corpus", {"a": 1})
    begun_only.mkdir(parents=True)
    assert store.used() == []
    store.complete(made, {"a": 1})
    store.complete(ArtifactStore(tmp_path).folder("moments", {"a": 2}), {"a": 2})  # another run's
    assert store.used() == [made.name]


def test_prune_removes_what_is_old_and_what_a_killed_process_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, old = ArtifactStore(tmp_path / "store"), time.time() - 40 * 86400
    for task in ("old", "new"):
        folder = store.folder("moments", {"task": task})
        ArtifactStore(store.root).complete(folder, {"task": task})
        left = store.root / f".student-{task}-77-new" / "student"
        left.mkdir(parents=True)
        (left / "adapter_model.safetensors").write_bytes(b"half")
        for file in (folder / "complete.json", left / "adapter_model.safetensors"):
            os.utime(file, (old, old) if task == "old" else None)
    assert start.main(["artifacts", "prune", "--artifact_dir", str(store.root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("removed" in line for line in lines) == 2 and sum("unfinished" in line for line in lines) == 2
    kept = {path.name for path in store.root.iterdir()}
    assert kept == {store.folder("moments", {"task": "new"}).name, ".student-new-77-new"}
