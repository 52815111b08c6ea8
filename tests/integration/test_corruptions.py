"""Whatever is done to a file of the store or of a run: it is named, and never used."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.benchmarks import checksums
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.cli.program import main
from spd_lightning.cli.start import at_once
from spd_lightning.errors import UserError
from tests.integration.test_cli_fit import SETTINGS
from tests.settings import in_file

FEW = [s for s in SETTINGS if not s.startswith(("--evaluation.tasks", "--evaluation.methods", "--data.num_prompts"))]
FEW += ["--evaluation.tasks=[letters]", "--evaluation.methods=[base, student]", "--data.num_prompts=6"]


WEIGHTS = ("safetensors", "jsonl")  # what artifacts hold beside their record


def fit(model: str, run: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        return main(["fit", f"--subspace.model_name_or_path={model}", f"--run_dir={run}", *in_file(FEW)])


@pytest.fixture(scope="module")
def run_dir(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert fit(tiny_model_dir, folder) == 0
    return folder


@pytest.fixture
def run(run_dir: Path, tmp_path: Path) -> Path:
    """A copy of the finished run and of its store."""
    shutil.copytree(run_dir.parent, tmp_path / "runs")
    return tmp_path / "runs" / "run"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose_lines(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))


def one_line_more(path: Path) -> None:
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[0])


def replaced(path: Path, content: bytes | Callable[[Path], Any]) -> None:
    path.unlink()
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)


def swap_words(old: str, new: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        assert old in text, path
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def becomes(content: bytes | Callable[[Path], Any]) -> Callable[[Path], None]:
    return lambda path: replaced(path, content)


EMPTY, PAGE = becomes(b""), becomes(b"<!DOCTYPE html><title>Sign in</title>")
POINTER = becomes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
FOLDER, DANGLING, GONE = becomes(Path.mkdir), becomes(lambda p: p.symlink_to("nowhere")), Path.unlink

DONE: dict[str, tuple[str, str, Callable[[Path], None]]] = {
    "moments flipped": ("moments", "moments.safetensors", flip),
    "moments cut": ("moments", "moments.safetensors", cut),
    "moments emptied": ("moments", "moments.safetensors", EMPTY),
    "moments a web page": ("moments", "moments.safetensors", PAGE),
    "moments a folder": ("moments", "moments.safetensors", FOLDER),
    "moments gone": ("moments", "moments.safetensors", GONE),
    "subspace flipped": ("subspace", "subspace.safetensors", flip),
    "subspace cut": ("subspace", "subspace.safetensors", cut),
    "subspace a dangling link": ("subspace", "subspace.safetensors", DANGLING),
    "corpus flipped": ("corpus", "generations.jsonl", flip),
    "corpus of two lines": ("corpus", "generations.jsonl", lose_lines),
    "corpus with a line more": ("corpus", "generations.jsonl", one_line_more),
    "corpus cut": ("corpus", "generations.jsonl", cut),
    "corpus gone": ("corpus", "generations.jsonl", GONE),
    "corpus without its record": ("corpus", "complete.json", GONE),
    "student flipped": ("student", "student/adapter_model.safetensors", flip),
    "student scaled": ("student", "student/adapter_config.json", swap_words('"lora_alpha": 8', '"lora_alpha": 80')),
    "student a pointer": ("student", "student/adapter_model.safetensors", POINTER),
    "student without weights": ("student", "student/adapter_model.safetensors", GONE),
    "scores of two rows": ("scores", "records.jsonl", lose_lines),
    "scores with another verdict": ("scores", "records.jsonl", swap_words('"correct": false', '"correct": true')),
    "scores emptied": ("scores", "records.jsonl", EMPTY),
    "scores gone": ("scores", "records.jsonl", GONE),
    "movement edited": ("movement", "complete.json", swap_words('"found"', '"sought"')),
    "movement cut": ("movement", "complete.json", cut),
    "record with another key": ("scores", "complete.json", swap_words('"version"', '"aversion"')),
    "record with another fact": ("student", "complete.json", swap_words('"step": ', '"step": 1')),
    "record with another checksum": ("moments", "complete.json", flip),
    "record emptied": ("corpus", "complete.json", EMPTY),
    "record a web page": ("subspace", "complete.json", PAGE),
    "record a list": ("moments", "complete.json", becomes(b"[]")),
    "record of deep nests": ("moments", "complete.json", becomes(b"[" * 100_000)),
    "record in another encoding": ("moments", "complete.json", becomes('{"é": 1}'.encode("latin-1"))),
    "record with half a character": ("moments", "complete.json", becomes(b'{"key": "\\ud83d"}')),
}


@pytest.mark.parametrize("name", DONE)
def test_a_damaged_artifact_is_named_set_aside_and_never_used(name: str, run: Path, capsys: Any) -> None:
    stage, file, damage = DONE[name]
    said: list[str] = []
    store = ArtifactStore(run.parent / ".artifacts", said.append)
    (row, *_) = [row for row in store.list() if row["stage"] == stage]
    assert store.take(row["path"]) is not None, "whole before"
    damage(row["path"] / file)
    if name == "corpus without its record":  # a file that somebody planted looks like that
        assert store.take(row["path"]) is None and not said
        return  # what a run does with it: test_a_run_makes_anew_what_is_damaged
    with pytest.raises(UserError, match=r"1 of \d+ artifacts"):
        at_once(["artifacts", "check", f"--artifact_dir={store.root}"])
    assert file.rpartition("/")[2] in next(line for line in capsys.readouterr().out.splitlines() if "DAMAGED" in line)
    assert store.take(row["path"]) is None and not row["path"].exists()
    (line,) = said
    assert file.rpartition("/")[2] in line and f"set aside as {row['path'].name}.damaged" in line
    assert (row["path"].parent / f"{row['path'].name}.damaged").is_dir()
    assert store.take(row["path"]) is None and len(said) == 1


def test_a_run_makes_anew_what_is_damaged(run: Path, tiny_model_dir: str, capsys: Any) -> None:
    """Every artifact at once, under another run folder: the same in the end, and each is named."""
    store = ArtifactStore(run.parent / ".artifacts")
    for row in store.list():
        file = {"corpus": "complete.json", "movement": "complete.json"}.get(row["stage"])
        path = row["path"] / file if file else next(p for p in row["path"].rglob("*.*") if p.suffix[1:] in WEIGHTS)
        (GONE if row["stage"] == "corpus" else flip)(path)
    again = run.parent / "again"
    assert fit(tiny_model_dir, again) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "set aside as" in line]
    assert len(told) == len(store.list()) / 2 == 7
    assert any("generations.jsonl has no record of what it was made from" in line for line in told)
    names = ["subspace/subspace.safetensors", "corpus/generations.jsonl", "adapter/adapter_model.safetensors"]
    for name in (*names, "samples/letters.spd.jsonl", "samples/letters.base.jsonl", "keys.json"):
        assert (again / name).read_bytes() == (run / name).read_bytes(), name
    results = [json.loads((folder / "results.json").read_text()) for folder in (run, again)]
    assert results[0]["comparisons"] == results[1]["comparisons"] and results[0]["corpus"] == results[1]["corpus"]


EDITED: dict[str, tuple[str, Callable[[Path], None]]] = {
    "results": ("results.json", swap_words('"n": 7', '"n": 700')),
    "samples": ("samples/letters.base.jsonl", swap_words('"correct": false', '"correct": true')),
    "samples gone": ("samples/letters.base.jsonl", GONE),
    "config": ("config.yaml", swap_words("seed_everything: 42", "seed_everything: 43")),
    "keys": ("keys.json", swap_words('"step": ', '"step": 1')),
    "corpus": ("corpus/generations.jsonl", lose_lines),
    "losses": ("logs/metrics.csv", swap_words("0.", "0.0")),
}


@pytest.mark.parametrize("name", EDITED)
def test_a_report_says_what_was_changed_by_hand(name: str, run: Path, capsys: Any) -> None:
    file, edit = EDITED[name]
    at_once(["verify", str(run)])
    assert "every file is as it was written" in capsys.readouterr().out
    edit(run / file)
    what = f"{file} {'is missing' if edit is GONE else 'was changed'}"
    with pytest.raises(UserError, match=what):
        at_once(["verify", str(run)])
    at_once(["report", str(run)])
    assert what in capsys.readouterr().err and what in (run / "report.md").read_text()
    with pytest.raises(UserError, match=what):
        at_once(["verify", str(run)])  # the report blesses nothing but itself


def test_a_report_keeps_the_manifest_whole(run: Path, capsys: Any) -> None:
    before = json.loads((run / "manifest.json").read_text())
    at_once(["report", str(run)])
    at_once(["verify", str(run)])
    assert "by hand" not in capsys.readouterr().err
    assert json.loads((run / "manifest.json").read_text()).keys() == before.keys()


def test_a_run_that_did_not_end_well_has_nothing_to_compare_with(run: Path, capsys: Any) -> None:
    (run / "manifest.json").unlink()
    with pytest.raises(UserError, match="did not end well"):
        at_once(["verify", str(run)])
    at_once(["report", str(run)])
    assert "cannot be told" in capsys.readouterr().err
    (run / "manifest.json").write_text("[")
    for command in ("verify", "report"):
        with pytest.raises(UserError, match=r"manifest.json cannot be read as JSON .* Remove it"):
            at_once([command, str(run)])


@pytest.mark.parametrize("ended", [True, False])
def test_rows_that_were_edited_by_hand_are_not_kept(ended: bool, run: Path, tiny_model_dir: str, capsys: Any) -> None:
    """Where the last command was killed, so that there is no manifest, too: the file has a checksum of its own."""
    if not ended:
        (run / "manifest.json").unlink()
    swap_words('"n": 7', '"n": 700')(run / "results.json")
    at_once(["report", str(run)])
    assert "By hand, since it ended: results.json was changed" in capsys.readouterr().err
    status = fit(tiny_model_dir, run)
    said = capsys.readouterr().err
    assert (status, "results.json was changed by hand" in said) == (2, True), said
    assert (run / "manifest.json").is_file() == ended
    (run / "results.json").unlink()
    assert fit(tiny_model_dir, run) == 0
    at_once(["verify", str(run)])


def test_what_a_student_was_made_from_is_not_read_from_an_edited_file(
    run: Path, tiny_model_dir: str, capsys: Any
) -> None:
    keys = json.loads((run / "keys.json").read_text())
    student, manifest = keys["student"], run / "manifest.json"
    text = manifest.read_text()
    for change in (7, {**student, "step": "x"}, {**student, "step": student["step"] + 1}):
        (run / "keys.json").write_text(json.dumps({**keys, "student": change}))
        for there in (True, False):  # a killed command leaves none: the record has a checksum of its own
            manifest.write_text(text) if there else manifest.unlink()
            assert fit(tiny_model_dir, run) == 2
            assert "keys.json was changed by hand since the run ended. Put it back" in capsys.readouterr().err


def test_an_edited_record_of_the_surroundings_is_told_without_a_manifest(
    run: Path, tiny_model_dir: str, capsys: Any
) -> None:
    found = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**found, "packages": {**found["packages"], "torch": "1"}}))
    (run / "manifest.json").unlink()
    at_once(["report", str(run)])
    assert "By hand, since it ended: environment.json was changed" in capsys.readouterr().err
    assert fit(tiny_model_dir, run) == 2
    assert "environment.json was changed by hand since the run ended. Put it back" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["7", '"x"', "[]", '{"id": 7}'])
def test_samples_that_were_edited_where_nothing_tells(line: str, run: Path, capsys: Any) -> None:
    (run / "manifest.json").unlink()
    (run / "samples" / "letters.base.jsonl").write_text(f"{line}\n")
    status = main(["test", str(run), "--tasks=[chains]"])
    said = capsys.readouterr().err
    assert (status, "Traceback" in said) == (0 if "id" in line else 2, False), said
    assert "has no manifest.json, so whether its files were changed by hand cannot be told" in said
    assert "id" in line or f"What stands in {run} (nothing tells) cannot be shown" in said or "letters.base" in said


MADE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "weights": ("adapter/adapter_model.safetensors", flip),
    "scale": ("adapter/adapter_config.json", swap_words('"lora_alpha": 8', '"lora_alpha": 80')),
    "subspace": ("subspace/subspace.safetensors", flip),
    "corpus": ("corpus/generations.jsonl", lose_lines),
    "samples": ("samples/letters.spd.jsonl", swap_words('"correct": false', '"correct": true')),
}


@pytest.mark.parametrize("name", MADE)
def test_no_rows_are_added_to_what_was_changed_by_hand(name: str, run: Path, capsys: Any) -> None:
    """Nor does the manifest of such a command make of the change what a run wrote."""
    file, edit = MADE[name]
    edit(run / file)
    before = (run / "results.json").read_bytes()
    assert main(["test", str(run), "--tasks=[chains]"]) == 2
    assert f"{file} was changed. Put the old files back, or give the run's own command" in capsys.readouterr().err
    assert (run / "results.json").read_bytes() == before
    with pytest.raises(UserError, match=f"{file} was changed"):
        at_once(["verify", str(run)])


@pytest.mark.parametrize("name", ["weights", "scale"])
def test_a_student_that_was_changed_by_hand_is_known_without_a_manifest(name: str, run: Path, capsys: Any) -> None:
    file, edit = MADE[name]
    edit(run / file)
    (run / "manifest.json").unlink()
    for command in (["test", str(run), "--tasks=[chains]"], ["export", str(run), "--form=adapter", f"--out={run}-out"]):
        assert main(command) == 2
        assert "are not those that were trained: they were changed since" in capsys.readouterr().err
    assert not Path(f"{run}-out").exists()


def test_what_was_changed_after_a_killed_command_is_known_by_the_manifest_before_it(
    run: Path, tiny_model_dir: str, capsys: Any
) -> None:
    (run / "manifest.json").rename(run / ".manifest.json-new")  # as the killed command leaves it
    file, edit = MADE["samples"]
    edit(run / file)
    for _ in range(2):
        assert main(["test", str(run), "--tasks=[chains]"]) == 2
        assert f"{file} was changed. Put the old files back" in capsys.readouterr().err
    assert fit(tiny_model_dir, run) == 0
    assert not (run / ".manifest.json-new").exists()
    at_once(["verify", str(run)])


@pytest.mark.slow
@pytest.mark.parametrize("changed", [False, True])
def test_a_run_is_reproduced_or_what_differs_first_is_said(changed: bool, run: Path, capfd: Any) -> None:
    """All stages are run anew, beside the run, which stays as it is; nothing is left of them."""
    if changed:  # as another program would have written it: its checksums are right
        swap_words("a", "b")(run / "corpus" / "generations.jsonl")
        RunFolder(run).manifest.write()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    if changed:
        with pytest.raises(SystemExit, match=r"^1$"):
            at_once(["verify", str(run), "--recompute"])
    else:
        at_once(["verify", str(run), "--recompute"])
    shown = capfd.readouterr().out.splitlines()
    assert "every file is as it was written" in shown[0] and shown[2] == f"Against {run}:"
    says = "Not reproduced. What differs first: corpus, lines that differ: 1 (bound 0)."
    assert shown[-1] == (says if changed else "Reproduced: every bound holds.")
    assert {line.split()[0] for line in shown[4:-1]} >= {"moments", "subspace", "corpus", "adapter", "letters,"}
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert {path.name for path in run.parent.iterdir()} == {run.name, ".artifacts"}


@pytest.mark.parametrize("status", [0, 1, 2, 130])
def test_a_run_is_computed_anew_by_its_own_configuration(
    status: int, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    asked: list[list[str]] = []

    def ran(command: list[str], *, env: dict[str, str], **how: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        (Path(command[6].removeprefix("--run_dir=")).parent / "left").write_text("by a killed process")
        assert env["WANDB_MODE"] == "disabled"
        return subprocess.CompletedProcess(command, status, "benchmark\n" + "\nAgainst x:\n" * (status < 2))

    monkeypatch.setattr(subprocess, "run", ran)
    if status:
        with pytest.raises(SystemExit, match=f"^{status}$"):
            at_once(["verify", str(run), "--recompute"])
    else:
        at_once(["verify", str(run), "--recompute"])
    ((_, *command),) = asked
    assert command[:5] == ["-m", "spd_lightning", "fit", "--config", f"{run}/config.yaml"]
    assert command[-1] == f"--check_against={run}" and len(command) == 8
    assert not list(run.parent.glob(".verify-*"))
    shown = capsys.readouterr().out
    assert ("Against x:" in shown) == (status < 2) and "benchmark" not in shown


def test_commands_that_use_a_run_say_what_was_changed_by_hand(run: Path, capsys: Any) -> None:
    lose_lines(run / "corpus" / "generations.jsonl")
    shutil.copy(RunFolder(run).subspace, run.parent / "other.safetensors")
    for command in (
        ["contamination", str(run), "--limit=0"],
        ["export", str(run), "--form=projected", f"--out={run}-out"],
        ["sample", str(run), "--prompt=a", "--max_new_tokens=1"],
        ["compare", str(run), str(run.parent / "other.safetensors")],
        ["runs", "show", str(run)],
    ):
        assert main(command) == 0
        assert "By hand, since it ended: corpus/generations.jsonl was changed" in capsys.readouterr().err, command


def test_what_the_checksums_cost_is_measured(run: Path, capsys: Any) -> None:
    capsys.readouterr()
    assert checksums.main([str(run), "--rounds=1", f"--json={run.parent / 'figures'}"]) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert rows == ["stage", "extract", "generate", "fine_tune", "evaluate"]
    (figures,) = json.loads((run.parent / "figures").read_text())
    assert all(row["bytes"] > 0 and row["warm"] > 0 and row["cold"] > 0 for row in figures.values())
    lose_lines(next((run.parent / ".artifacts").glob("corpus-*/generations.jsonl")))
    with pytest.raises(AssertionError, match=r"generations\.jsonl was changed"):
        checksums.main([str(run), "--rounds=1"])


def test_a_damaged_record_ends_no_list(run: Path, capsys: Any) -> None:
    store = ArtifactStore(run.parent / ".artifacts")
    EMPTY(store.list()[0]["path"] / "complete.json")
    EMPTY(run / "keys.json")
    at_once(["artifacts", "list", f"--artifact_dir={store.root}"])
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()].count("damaged") == 1


def test_an_edited_configuration_is_written_anew_by_its_own_command(
    run: Path, tiny_model_dir: str, capsys: Any
) -> None:
    swap_words("seed_everything: 42", "seed_everything: 43")(run / "config.yaml")
    assert RunFolder(run).configuration()["seed_everything"] == 43
    assert fit(tiny_model_dir, run) == 0
    assert "config.yaml was changed by hand" in capsys.readouterr().err
    assert RunFolder(run).configuration()["seed_everything"] == 42
    at_once(["verify", str(run)])
