"""The configurations that come with the package: found by name in a checkout and outside one, and copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from spd_lightning import shipped
from spd_lightning.cli.program import main
from spd_lightning.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"


def test_every_file_has_a_name() -> None:
    assert {f"{name}.yaml" for name in shipped.names()} == {
        path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml")
    }
    assert {"demo", "gsm8k", "paper/gsm8k", "trainer/ddp", "sweeps/rank"} <= set(shipped.names())


@pytest.mark.parametrize("name", ["paper/gsm8k", "paper/gsm8k.yaml", "configs/paper/gsm8k.yaml"])
def test_found_from_any_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = shipped.find(name)
    assert found is not None and found.read_bytes() == (CONFIGS / "paper" / "gsm8k.yaml").read_bytes()


@pytest.mark.parametrize("name", ["nowhere", "", ".", "configs", "trainer", "../pyproject", "/gsm8k", "gsm8k.json"])
def test_what_is_no_configuration(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped.find(name) is None


def test_a_file_of_ones_own_goes_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gsm8k").write_text("mine")
    assert shipped.find("gsm8k") == Path("gsm8k")


def test_copied_and_never_over_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped.copy("paper/gsm8k") == Path("gsm8k.yaml")
    assert Path("gsm8k.yaml").read_bytes() == (CONFIGS / "paper" / "gsm8k.yaml").read_bytes()
    with pytest.raises(UserError, match=r"gsm8k\.yaml is already there; nothing was written\. Set --out"):
        shipped.copy("gsm8k")
    assert shipped.copy("gsm8k", "new/mine.yaml").is_file() and shipped.copy("demo", tmp_path).name == "demo.yaml"
    assert shipped.copy("gsm8k", "folder/") == Path("folder/gsm8k.yaml"), "typed as a folder"
    with pytest.raises(UserError, match=r"Unknown configuration 'gsm9k'\. Did you mean 'gsm8k'\? Known: demo, gsm8k"):
        shipped.copy("gsm9k")
    with pytest.raises(UserError, match=r"x\.yaml cannot be written: .*\. Set --out"):
        shipped.copy("mbpp", "gsm8k.yaml/x.yaml")


def test_a_part_of_a_copy_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_text("a part")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", full)
        with pytest.raises(UserError, match=r"a\.yaml cannot be written: No space left on device"):
            shipped.copy("gsm8k", tmp_path / "a.yaml")
    assert shipped.copy("gsm8k", tmp_path / "a.yaml").is_file(), "nothing is in the way"


def test_the_command_lists_and_copies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["configs", "list"]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(rows) == shipped.names() and all(len(what) > 20 for what in rows.values())
    assert main(["configs", "copy", "demo", "--out", "mine.yaml"]) == 0
    assert capsys.readouterr().out == "Copied: mine.yaml\n" and (tmp_path / "mine.yaml").is_file()
    assert main(["configs", "copy"]) == 2
    assert "copy needs a name" in capsys.readouterr().err
