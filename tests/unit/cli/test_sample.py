"""``sample``: prompts from a file, from lines that are typed, and each model loaded once for all of them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch

from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.cli.run_config import run_config
from spd_lightning.cli.sample import read_prompts, sample, system_prompt
from spd_lightning.errors import UserError
from spd_lightning.finetuning.lora import add_lora
from spd_lightning.finetuning.student import save_adapter
from spd_lightning.model.load import load_model
from tests.conftest import byte_tokenizer, tiny_model
from tests.unit.artifacts.test_runs import begun


@pytest.fixture
def base_run(tiny_model_dir: str, tmp_path: Path) -> str:
    """A run that has a base alone."""
    run = begun(tmp_path / "run")
    run.config_file.write_text(
        f"subspace: {{model_name_or_path: {tiny_model_dir}, task: letters, task_file: null}}\n"
        "data: {dtype: float32, prompt_format: plain}\n"
    )
    return str(run.path)


def test_prompts_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one\n\n two \n")
    (tmp_path / "p.jsonl").write_text('{"prompt": "a\\nb", "target": "x"}\n{"prompt": "c"}\n')
    assert read_prompts(tmp_path / "p.txt") == ["one", " two "]
    assert read_prompts(tmp_path / "p.jsonl") == ["a\nb", "c"]
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "other.jsonl").write_text('{"question": "a"}\n')
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    for name, message in {
        "none.txt": "there is no such file. Set --prompts",
        "empty.txt": "holds no prompt. Write one a line.",
        "other.jsonl": "line 1: there is no text under prompt",
        "bytes.txt": "is no UTF-8 text",
    }.items():
        with pytest.raises(UserError, match=message):
            read_prompts(tmp_path / name)


def test_a_prompt_that_no_tokenizer_takes_is_refused(
    base_run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b\\ud83d"}\n')
    with pytest.raises(UserError, match=r"half\.jsonl, line 2: .*ud83d is half a character"):
        read_prompts(tmp_path / "half.jsonl")
    with pytest.raises(UserError, match=r"prompt 'caf\\udce9' holds half a character .*Type it in UTF-8"):
        sample(base_run, prompt="caf\udce9")
    monkeypatch.setattr("sys.stdin", io.StringIO("caf\udce9\n"))
    with pytest.raises(UserError, match="holds half a character"):
        sample(base_run, max_new_tokens=1)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\xff\n"), encoding="utf-8"))
    with pytest.raises(UserError, match=r"is no UTF-8 text \(invalid start byte\)"):
        sample(base_run, max_new_tokens=1)


def test_every_line_that_is_typed_is_completed_and_the_model_is_loaded_once(
    base_run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from spd_lightning.model import load

    loaded, real = [], load.load_model
    monkeypatch.setattr(load, "load_model", lambda *args: loaded.append(args) or real(*args))
    monkeypatch.setattr("sys.stdin", io.StringIO("first\n\nsecond"))
    sample(base_run, max_new_tokens=2)
    shown = capsys.readouterr().out
    assert shown.index("=== first") < shown.index("=== second") and shown.count("--- base (2 tokens, length)") == 2
    assert len(loaded) == 1


def test_a_prompt_stands_behind_the_system_prompt_of_the_rows(
    base_run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, config = tmp_path / "rows.jsonl", RunFolder(base_run).config_file
    turns = [{"role": role, "content": f"a {role}"} for role in ("system", "user", "assistant")]
    rows.write_text(f"{json.dumps({'messages': turns})}\n" * 5)
    config.write_text(config.read_text().replace("letters, task_file: null", f"custom, task_file: {rows}"))
    sample(base_run, prompt="x", max_new_tokens=1)
    assert "data.prompt_format: plain, behind the system prompt 'a system'\n" in capsys.readouterr().out
    brief = {"path": str(tmp_path / "gone.jsonl"), "system_prompt": "Be brief."}
    assert system_prompt({"subspace": {"task": "custom", "task_file": brief}}) == "Be brief."
    assert not capsys.readouterr().err
    assert system_prompt({"subspace": {"task": "custom", "task_file": brief["path"]}}) == ""
    assert "these prompts stand without it: task_file='" in capsys.readouterr().err, "as from another folder"
    named = {"task": ["custom:sums"], "task_file": {"sums": str(rows)}}
    assert system_prompt({"subspace": named}) == "a system"
    assert system_prompt({"subspace": {**named, "task": ["custom:sums", "letters"]}}) == ""


def test_a_terminal_is_told_what_to_do_and_an_empty_line_ends(
    base_run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = io.StringIO("first\n\nnever\n")
    monkeypatch.setattr(typed, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", typed)
    sample(base_run, max_new_tokens=2)
    said = capsys.readouterr()
    assert "=== first" in said.out and "never" not in said.out and "Ctrl-D ends" in said.err


def test_two_sources_of_prompts_are_one_too_many() -> None:
    with pytest.raises(UserError, match="--prompt and --prompts are both given"):
        sample("run", prompt="a", prompts="b")


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run folder: it has no config.yaml\. Give a folder that fit wrote"):
        run_config(RunFolder(tmp_path))


def test_a_student_of_another_model_is_refused_before_a_weight_is_loaded(
    base_run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was copied in from elsewhere: its record and its config name the base that it is of."""
    other = tmp_path / "other"
    tiny_model(seed=1).save_pretrained(other)
    byte_tokenizer().save_pretrained(other)
    wrapped = add_lora(load_model(str(other), torch.float32), 4, 8, 0.0, None, 1, str(other))
    save_adapter(wrapped, RunFolder(base_run).adapter)
    for name in ("load_model", "load_student"):
        monkeypatch.setattr(f"spd_lightning.model.load.{name}", lambda *args: pytest.fail("weights were loaded"))
    with pytest.raises(UserError, match=r"was trained on .*other, not on .*tiny-llama"):
        sample(base_run, prompt="a")
