"""A run folder: its copies are its own, nothing half written stays, and other inputs are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from spd_lightning.artifacts import files
from spd_lightning.artifacts.files import add_file
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.errors import UserError


def test_editing_a_runs_file_leaves_the_artifact_alone(tmp_path: Path) -> None:
    artifact = tmp_path / "store" / "generations.jsonl"
    artifact.parent.mkdir()
    artifact.write_text("one\n")
    copy = add_file(artifact, RunFolder(tmp_path / "run").corpus)
    with copy.open("a") as file:
        file.write("edited\n")
    assert artifact.read_text() == "one\n" and artifact.stat().st_nlink == 1
    assert [p.name for p in copy.parent.iterdir()] == ["generations.jsonl"]


def test_a_copy_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "copy_file", full)
    (tmp_path / "file").write_text("whole")
    with pytest.raises(UserError, match=r"Cannot write .*run/a/file: No space left on device"):
        add_file(tmp_path / "file", tmp_path / "run" / "a" / "file")
    assert not list((tmp_path / "run" / "a").iterdir())


def test_what_a_killed_process_was_writing_is_removed_by_the_next_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    environment = {"fingerprint": "f"}
    folder.claim({"seed_everything": 1}, "seed_everything: 1\n", environment)
    (folder.path / "corpus").mkdir()
    (folder.path / "corpus" / ".generations.jsonl-new").write_text("half")
    (folder.path / ".adapter-new").mkdir()
    folder.claim({"seed_everything": 1}, "seed_everything: 1\n", environment)
    assert not list(folder.path.rglob(".*-new"))


def test_another_configuration_is_named_be_it_option_content_or_version(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.claim({"seed_everything": 1}, "seed_everything: 1\n", {"fingerprint": "f", "content": {"model": "a" * 64}})
    for config, environment, message in (
        ({"seed_everything": 2}, {"fingerprint": "g"}, "seed_everything: 1 there, 2 here"),
        ({"seed_everything": 1}, {"fingerprint": "g", "content": {"model": "b" * 64}}, r"model: 'aaaaaaaaaaaa\.\.\.'"),
        ({"seed_everything": 1}, {"fingerprint": "g", "content": {"model": "a" * 64}}, "another version of this prog"),
    ):
        with pytest.raises(UserError, match=message):
            folder.claim(config, "", environment)


def test_other_inputs_are_refused_once_something_was_made_from_the_old_ones(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.record("corpus", {"prompts": "a" * 64, "top_p": 0.9})
    changed = {"prompts": "b" * 64, "top_p": 0.9}
    assert folder.changed_inputs("corpus", changed) is None, "nothing was made yet"
    (folder.path / "adapter").mkdir()
    assert folder.changed_inputs("corpus", {"prompts": "a" * 64, "top_p": 0.9}) is None
    message = folder.changed_inputs("corpus", changed)
    assert (
        message is not None and "another corpus (prompts: 'aaaaaaaaaaaa...' there, 'bbbbbbbbbbbb...' here)" in message
    )


def test_the_student_is_that_of_the_last_finished_round(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.student() is None and run.rounds() == []
    run.adapter.mkdir()
    assert run.student() == tmp_path / "adapter"
    for number in (2, 9, 10, 11):
        run.round(number).round_student.mkdir(parents=True)
    run.round(11).round_student.rmdir()
    (tmp_path / "round-trip").mkdir()
    assert [folder.path.name for folder in run.rounds()] == ["round-2", "round-9", "round-10", "round-11"]
    assert run.student() == tmp_path / "round-10" / "student", "numbers, not letters; the eleventh is not finished"


def test_what_a_round_was_made_from_is_not_read_from_an_edited_file(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.claim({}, "", {"fingerprint": "f"})
    run.round(2).record("student", {"step": 4})
    run.claim({}, "", {"fingerprint": "f"})
    file = run.round(2).keys_file
    file.write_text(file.read_text().replace('"step": 4', '"step": 40'))
    assert run.touched() == [file]
    with pytest.raises(UserError, match=r"round-2/keys\.json was changed by hand since the run ended\. Put it back"):
        run.claim({}, "", {"fingerprint": "f"})


def test_losses_that_were_edited_are_told_when_the_run_goes_on(tmp_path: Path) -> None:
    """They are not computed anew, and the next manifest lists them as they stand."""
    run, said = RunFolder(tmp_path / "run"), list[str]()
    run.claim({}, "", {"fingerprint": "f"})
    run.logs.mkdir()
    run.metrics.write_text("step,train/loss\n0,2.0\n")
    for text, told in (("2.0", 0), ("1.0", 1)):
        run.manifest.write()
        run.metrics.write_text(run.metrics.read_text().replace("2.0", text))
        run.claim({}, "", {"fingerprint": "f"}, said.append)
        assert len(said) == told
    assert "logs/metrics.csv was changed by hand since the run ended; losses are shown as they stand" in said[0]


def test_samples_are_found_under_the_names_they_are_written_to(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.samples.mkdir()
    for task, method in (("mmlu", "student"), ("custom:words", "base")):
        run.sample_file(run.samples, task, method).write_text("")
    (run.samples / "notes.txt").write_text("")
    assert list(run.sample_files()) == [("custom_words", "base"), ("mmlu", "student")]
