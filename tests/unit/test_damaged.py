"""Every file that the package reads by itself, damaged in every way: told in one line with its path, or left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save, save_file

from spd_lightning.artifacts.files import write_json
from spd_lightning.artifacts.locks import _owner
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.runs import summarise
from spd_lightning.cli import commands
from spd_lightning.errors import UserError
from spd_lightning.generation.vllm_engine import _end_tokens
from spd_lightning.model.chat_template import check_student_template
from spd_lightning.model.checkpoint_files import content_fingerprint
from spd_lightning.model.student_base import _named, _other_architecture, _recorded
from spd_lightning.pipeline.adding import earlier_results
from spd_lightning.pipeline.agreement import _verdicts, _weights
from spd_lightning.pipeline.resume import format_of_student
from spd_lightning.report.runs import read_run
from spd_lightning.report.schema import read_results
from spd_lightning.report.unfinished import failed_points
from spd_lightning.sweep.grid import Point
from spd_lightning.sweep.runner import is_done
from tests.unit.report.test_report import make_run

WEIGHTS = save({"a": np.ones(4, dtype=np.float32)})
DAMAGED: dict[str, bytes | None] = {
    "cut": b'{"a": "',
    "cut weights": WEIGHTS[:-3],
    "empty": b"",
    "binary": bytes(range(256)) * 4,
    "another kind": b"[1, 2]",
    "a number": b"7\n",
    "nested without end": b"[" * 100_000,
    "a web page": b"<!DOCTYPE html><html><body>404</body></html>",
    "an LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "a folder": None,
    "a link to nothing": None,
}


def put(path: Path, damage: str) -> None:
    """A damaged file in the place of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if damage == "a folder":
        path.mkdir()
    elif damage == "a link to nothing":
        path.symlink_to("nowhere")
    else:
        path.write_bytes(DAMAGED[damage] or b"")


def other(folder: Path) -> Path:
    """A model's folder whose config is whole."""
    (folder / "base").mkdir()
    write_json(folder / "base" / "config.json", {"model_type": "llama"})
    (folder / "base" / "model.safetensors").write_bytes(WEIGHTS)
    return folder / "base"


def student_of_run(folder: Path) -> Any:
    (folder / "environment.json").write_text("{}")
    return format_of_student(folder / "adapter")


def exported(folder: Path) -> None:
    write = {"subspace": {"model_name_or_path": "m", "task": "t"}, "data": {"method": "spd"}}
    write_json(folder / "config.yaml", write)
    commands.export(str(folder), form="adapter", out=str(folder / "out"))


class Tokenizer(SimpleNamespace):
    """What is asked of one."""


ONE = Tokenizer(eos_token_id=1, chat_template="{{ messages }}")
STRICT: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "the base in an adapter's config": ("adapter_config.json", _named),
    "the record of a student": ("complete.json", lambda p: _recorded(p / "student")),
    "the config of a student": ("config.json", lambda p: _other_architecture(p, str(other(p)))),
    "what a model's files are": ("config.json", content_fingerprint),
    "its template": ("chat_template.jinja", lambda p: check_student_template(p, ONE)),  # type: ignore[arg-type]
    "its ends": ("generation_config.json", lambda p: _end_tokens(p, ONE)),  # type: ignore[arg-type]
    "the samples of another run": ("a.jsonl", lambda p: _verdicts(p / "a.jsonl")),
    "the adapter of another run": ("a.safetensors", lambda p: _weights(p / "a.safetensors")),
    "the run of a student": ("config.yaml", student_of_run),
    "results": ("results.json", lambda p: read_results(p / "results.json")),
    "results of an export": ("results.json", exported),
    "a run's subspace": ("subspace/subspace.safetensors", lambda p: read_run(p)),
}
LENIENT: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "options in a list": ("config.yaml", lambda p: summarise(RunFolder(p)).method),
    "results in a list": ("results.json", lambda p: summarise(RunFolder(p)).headline()),
    "who holds a lock": ("lock", lambda p: _owner(p / "lock")),
    "a point of a sweep": (".sweep/a.json", lambda p: is_done(Point({}, [], "a"), p)),
    "points that failed": (".sweep/a.json", failed_points),
    "rows that were there": ("results.json", lambda p: earlier_results(RunFolder(p), "f")),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("name", STRICT)
def test_a_damaged_file_is_told_in_one_line(name: str, damage: str, tmp_path: Path) -> None:
    file, act = STRICT[name]
    if name == "a run's subspace":
        make_run(tmp_path / "made").rename(tmp_path / "run")
        (tmp_path / "run" / file).unlink()
        tmp_path = tmp_path / "run"
    put(tmp_path / file, damage)
    harmless = damage in ("a folder", "a link to nothing")  # no file: as if it were not there
    harmless |= name == "its template" and damage == "empty"
    harmless |= name == "the samples of another run" and damage == "empty"
    harmless |= name == "the run of a student" and damage == "empty"
    try:
        act(tmp_path)
    except UserError as error:
        assert (Path(file).name in str(error) or harmless) and "\n" not in str(error), error
        assert len(str(error)) < 600 + 3 * len(str(tmp_path))
    else:
        assert harmless, "it was taken"


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("name", LENIENT)
def test_what_is_only_looked_at_is_left_out(name: str, damage: str, tmp_path: Path) -> None:
    file, act = LENIENT[name]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "results.json").write_text("{}")
    put(tmp_path / file, damage)
    assert act(tmp_path) in ("-", (None, None), {}, False)


def test_results_that_cannot_be_kept_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").write_text('{"schema": 2}')
    assert earlier_results(RunFolder(tmp_path), "f") == {}
    assert "results.json: " in (said := capsys.readouterr().err) and "written anew" in said


def test_a_subspace_without_its_singular_values_is_told(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run") / "subspace" / "subspace.safetensors"
    save_file({"layers.0.k.basis": np.eye(4, dtype=np.float32)}, path, metadata={"spd": json.dumps({"rank": 4})})
    with pytest.raises(UserError, match=r"subspace\.safetensors cannot be read as a subspace file .*singular_values"):
        read_run(tmp_path / "run")


def test_text_that_no_file_can_hold_is_told_and_the_old_file_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(UserError, match=r"a\.json cannot hold .*'\\udce9' is half a character") as told:
        write_json(tmp_path / "a.json", {"command": "fit --run_dir caf\udce9"})
    str(told.value).encode()
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1} and len(list(tmp_path.iterdir())) == 1


def changed_by_hand(folder: Path, name: str, change: Callable[[Any], Any]) -> Path:
    """A run whose file is whole JSON, of another shape than a run writes."""
    run = RunFolder(make_run(folder / "run"))
    run.manifest.write()
    path = run.path / name
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    path.write_text("".join(json.dumps(change(json.loads(line))) + "\n" for line in lines))
    return run.path


FACTS = ("health", "not_run", "benchmarks", "corpus", "corpus_samples", "overlap", "passes", "moved", "added")
SHAPES: list[Any] = [7, "x", [7], ["x"], [{}], {"a": 7}, {"answers": [7]}, {"a.b": "x"}, [{"task": 1, "stage": []}]]


@pytest.mark.parametrize("fact", FACTS)
def test_facts_of_another_shape_are_told(fact: str, tmp_path: Path) -> None:
    run, told = changed_by_hand(tmp_path, "results.json", dict), 0
    whole = json.loads((run / "results.json").read_text())
    for shape in SHAPES:
        (run / "results.json").write_text(json.dumps({**whole, fact: shape}))
        try:
            commands.report([str(run)], format="md", plots="")
            commands.runs("show", [str(run)])
        except UserError as error:
            told += "run (results.json was changed" in str(error) or "results.json: " in str(error)
    assert told or fact == "added", "no shape of it is wrong"


@pytest.mark.parametrize(
    "name", ["keys.json", "environment.json", "corpus/generations.jsonl", "samples/arithmetic.spd.jsonl"]
)
@pytest.mark.parametrize("value", [7, "x", ["x"], None])
def test_other_files_of_another_shape_are_told_or_shown(name: str, value: Any, tmp_path: Path) -> None:
    stages = ("subspace", "corpus", "student", "artifacts")
    if name == "keys.json":
        run = make_run(tmp_path / "run")
        write_json(run / name, {stage: {"key": 1} for stage in stages})
        RunFolder(run).manifest.write()
        write_json(run / name, dict.fromkeys(stages, value))
    else:
        run = changed_by_hand(tmp_path, name, lambda found: {**dict.fromkeys(found, value), "values": value})
    (tmp_path / "store").mkdir()
    acts: list[Callable[[], Any]] = [
        lambda: commands.report([str(run)], format="md", plots=""),
        lambda: commands.runs("show", [str(run)]),
        lambda: commands.artifacts("list", artifact_dir=str(tmp_path / "store")),  # whose users it looks for
    ]
    for act in acts:
        try:
            act()
        except UserError as error:
            assert "run" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("value", [7, "x", [7], [{}], {"data": 7}])
def test_what_a_run_noted_is_of_its_shape_or_told(value: Any, tmp_path: Path) -> None:
    run = RunFolder(make_run(tmp_path / "run"))
    write_json(run.keys_file, {"subspace": value, "artifacts": value})
    write_json(run.environment_file, {"content": value, "revisions": value})
    reads: list[Callable[[], Any]] = [
        run.artifacts,
        lambda: run.noted("revisions", "data"),
        lambda: run.note_revisions({"a": "b"}),
    ]
    if not isinstance(value, dict):
        reads += [lambda: run.changed_inputs("subspace", {}), lambda: run.noted("content")]
    for read in reads:
        with pytest.raises(UserError, match=r"\.json holds \w+=.* where a .* is needed\. Put it back as it was"):
            read()
    write_json(run.keys_file, {"artifacts": None})
    write_json(run.environment_file, {"revisions": {"data": {"a": "b"}}})
    assert run.artifacts() == [] and run.noted("content") == {} and run.noted("revisions", "data") == {"a": "b"}


def test_a_fault_of_ours_is_not_put_on_a_run_that_is_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = changed_by_hand(tmp_path, "results.json", dict)

    def broken(*args: Any) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("spd_lightning.report.page.one_run", broken)
    with pytest.raises(UserError, match=r"run \(results\.json was changed\) cannot be shown \(KeyError: 'ours'\)"):
        commands.report([str(run)], plots="")
    RunFolder(run).manifest.write()
    with pytest.raises(KeyError):
        commands.report([str(run)], plots="")


@pytest.mark.parametrize("scores", [7, [7], [{}], [{"task": [], "method": "spd", "metric": "m", "value": 1}], {"a": 1}])
def test_scores_of_another_shape_are_not_listed(scores: Any, tmp_path: Path) -> None:
    run = changed_by_hand(tmp_path, "results.json", lambda found: {**found, "scores": scores})
    assert summarise(RunFolder(run)).headline() == (None, None)
    commands.runs("list", runs_dir=str(tmp_path))


def test_options_that_no_run_writes_are_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    whole = yaml.safe_load((run / "config.yaml").read_text())
    out = str(tmp_path / "out")
    acts: list[Callable[[], Any]] = [
        lambda: commands.export(str(run), form="adapter", out=out),
        lambda: commands.contamination(str(run), limit=0),
        lambda: commands.sample(str(run), prompt="a"),
        lambda: commands.report([str(run)], format="md", plots=""),
        lambda: commands.runs("show", [str(run)]),
        lambda: commands.runs("list", runs_dir=str(tmp_path)),
    ]
    told = []
    for change in ({}, {"subspace": [7]}, {"subspace": {"task": 7}}, {"data": "x"}, {"data": None}, {"trainer": [[]]}):
        write_json(run / "config.yaml", {**whole, **change} if change else {"seed_everything": 1})
        for act in acts:
            try:
                act()
            except UserError as error:
                told.append(str(error))
    assert all("\n" not in text and "run" in text for text in told)
    assert any("config.yaml says nothing of subspace, so it is not as a run wrote it" in text for text in told)
    assert any("config.yaml says nothing of data.dtype, " in text for text in told)
