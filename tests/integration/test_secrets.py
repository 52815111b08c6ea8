"""What options take from the environment stands in no file of a run; the run goes on where the values are the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from lightning.pytorch import Callback

from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.cli.parser import CommandLine
from spd_lightning.cli.program import main
from spd_lightning.cli.run_config import saved_values
from spd_lightning.errors import UserError
from tests.integration.test_cli_fit import SETTINGS
from tests.settings import PYTHONPATH, in_file

# task, callback and places by way of the environment; SPD_DATA_DIR, which the program itself reads, is planted, too
FEW = [s for s in SETTINGS if not s.startswith(("--evaluation.tasks", "--subspace.task", "--model.learning_rate"))]
FEW += ["--evaluation.tasks=[custom]", "--subspace.task=custom", "--evaluation.limit=2"]
SECRETS = {
    "SPD_TEST_FOLDER": "planted-folder-5e1f",
    "SPD_TEST_NOTE": "planted-note-77ab",
    "SPD_TEST_TOKEN": "planted-token-4c20",
    "SPD_DATA_DIR": "planted-data-91d0",
}
RATE = "0.00123456"  # a number of stage 3, which reads it from its key and checkpoint: no secret
TOLD = {
    "url": "https://${oc.env:SPD_TEST_NOTE}/in",
    "more": {
        "Authorization": "Bearer ${oc.env:SPD_TEST_TOKEN}",
        "to": ["${oc.env:SPD_TEST_TOKEN}", {"or": "${....url}"}],
    },
    "spare": "${oc.env:SPD_TEST_UNSET,${oc.env:SPD_TEST_TOKEN}}",
}
EXPRESSIONS = [
    "--subspace.task_file.path=${oc.env:SPD_TEST_FOLDER}/rows.jsonl",
    "--data_dir=${oc.env:SPD_TEST_FOLDER}",
    "--artifact_dir=${oc.env:SPD_TEST_UNSET,store}",
    "--trainer.default_root_dir=${data_dir}/${oc.env:SPD_TEST_NOTE}",
    f"--trainer.callbacks=[{{class_path: tests.integration.test_secrets.Told, init_args: {json.dumps(TOLD)}}}]",
    "--model.learning_rate=${oc.env:SPD_TEST_RATE}",
    "--trainer.gradient_clip_val=${oc.env:SPD_TEST_RATE}",
]


class Told(Callback):
    """A callback that is given addresses and words, as those that send messages are."""

    def __init__(self, url: str, more: dict[str, Any], spare: str) -> None:
        self.told = url, more, spare

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """The run itself has the values."""
        url, token = f"https://{SECRETS['SPD_TEST_NOTE']}/in", SECRETS["SPD_TEST_TOKEN"]
        assert self.told == (url, {"Authorization": f"Bearer {token}", "to": [token, {"or": url}]}, token)


class Place:
    """A folder to work in, beside the one whose name is a secret; the environment has all secrets."""

    def __init__(self, tmp_path: Path, patch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.path, self.secret = tmp_path / "here", tmp_path / SECRETS["SPD_TEST_FOLDER"]
        self.path.mkdir()
        self.secret.mkdir()
        rows = [{"prompt": f"Say {n}: ", "target": f"{n}"} for n in range(40)]
        (self.secret / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.patch, self.capfd = patch, capfd
        self.planted = {**SECRETS, "SPD_TEST_FOLDER": str(self.secret), "SPD_TEST_RATE": RATE}
        patch.chdir(self.path)
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("PYTHONPATH", PYTHONPATH)

    def run(self, *args: str, **changed: str | None) -> tuple[int, str, str]:
        """A command in this folder: status, output, errors."""
        with self.patch.context() as patch:
            for name, value in {**self.planted, **changed}.items():
                patch.delenv(name, raising=False) if value is None else patch.setenv(name, value)
            status = main(list(args))
            wandb.finish()  # as the end of a process does
        return (status, *self.capfd.readouterr())

    def works(self, *args: str, **changed: str | None) -> tuple[str, str]:
        """The same of one that must end well: output, errors."""
        status, out, err = self.run(*args, **changed)
        assert status == 0, err
        return out, err

    def holding(self) -> list[str]:
        """Files, by name or content, in which a secret stands; of the secret folder, all but its own name and rows."""
        return [
            f"{path}: {secret}"
            for path in (*self.path.rglob("*"), *self.secret.rglob("*"))
            for secret in SECRETS.values()
            if secret in path.name or (path.is_file() and secret.encode() in path.read_bytes())
        ]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Place:
    return Place(tmp_path, monkeypatch, capfd)


@pytest.mark.slow
def test_no_file_of_a_run_holds_a_value_of_the_environment(tiny_model_dir: str, place: Place) -> None:
    model = f"--subspace.model_name_or_path={tiny_model_dir}"
    place.works("fit", model, "--run_dir=runs/one", *in_file([*FEW, *EXPRESSIONS]))
    files = [path for path in place.path.rglob("*") if path.is_file()]
    assert any(p.suffix == ".wandb" and b"SPD_TEST_TOKEN" in p.read_bytes() for p in files), "it can be found there"
    assert any("store" in p.parts for p in files)
    assert any(p.suffix == ".html" for p in files) and any(p.suffix == ".ckpt" for p in files)
    assert place.holding() == []
    one, saved = place.path / "runs/one", ("--config=runs/one/config.yaml", "--run_dir=runs/one")
    config = yaml.safe_load((one / "config.yaml").read_text())
    assert config["data_dir"] == "${oc.env:SPD_TEST_FOLDER}"
    assert config["trainer"]["callbacks"][0]["init_args"]["spare"] == TOLD["spare"]

    # its configuration is enough to go on, and it is the same run and the same student, whatever the options' text
    environment = json.loads((one / "environment.json").read_text())
    for other in ((), (f"--model.learning_rate={RATE}", f"--trainer.gradient_clip_val={RATE}")):
        place.works("fit", *saved, *other)
        stages = json.loads((one / "results.json").read_text())["stages"]
        assert [row["skipped"] for row in stages] == [True] * 4
    assert json.loads((one / "environment.json").read_text())["fingerprint"] == environment["fingerprint"]
    # the commands on its result, and one more benchmark, take the values of now
    place.works("sample", "runs/one", "--prompt=Say 3: ")
    place.works("test", "runs/one", "--tasks=[letters]")
    for form in ("adapter", "merged", "projected"):
        place.works("export", "runs/one", f"--form={form}", f"--out={form}")
    checkpoint = next(path for path in files if path.suffix == ".ckpt")
    projected = f"--evaluation.subspace={one}/subspace/subspace.safetensors"
    place.works("test", saved[0], "--run_dir=runs/two", f"--ckpt_path={checkpoint}", projected)
    assert place.holding() == []

    # what only reads needs no variable
    gone = dict.fromkeys(place.planted)
    place.works("report", "runs/one", "runs/two", "--out=report", "--format=md,html,json,csv,latex", **gone)
    for command in (("report", "runs/one"), ("runs", "list"), ("runs", "show", "runs/one"), ("verify", "runs/one")):
        place.works(*command, **gone)
    shutil.copy(one / "subspace/subspace.safetensors", place.path / "copy.safetensors")
    place.works("compare", "runs/one", "copy.safetensors", **gone)
    place.works("artifacts", "list", "--artifact_dir=store", **gone)
    assert place.holding() == []
    # without the variable one line says so; with another value it is another run
    for command in (("fit", saved[0]), ("sample", "runs/one", "--prompt=x"), ("test", "runs/one")):
        status, _, err = place.run(*command, SPD_TEST_NOTE=None)
        assert status == 2 and err.count("\n") == 1 and "SPD_TEST_NOTE" in err, err
    status, _, err = place.run("fit", *saved, SPD_TEST_RATE="0.002")
    assert status == 2 and "model.learning_rate: '${oc.env:SPD_TEST_RATE}, sha256 " in err, err


@pytest.mark.slow
def test_no_file_of_a_sweep_holds_one_either(tiny_model_dir: str, place: Place) -> None:
    own = [text for text in EXPRESSIONS if not text.startswith("--artifact_dir")]
    (place.path / "some.yaml").write_text(Path(in_file([*FEW, *own])[0].partition("=")[2]).read_text())
    sweep = {
        "program": "spd_lightning",
        "method": "grid",
        "metric": {"name": "eval/custom/exact_match"},
        "command": ["python", "-m", "spd_lightning", "fit", "--config=some.yaml", "${args}"],
        "parameters": {
            "subspace.model_name_or_path": {"value": tiny_model_dir},
            "artifact_dir": {"value": "${oc.env:SPD_TEST_FOLDER}/store"},
            "subspace.rank": {"values": [2]},
        },
    }
    (place.path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    place.works("sweep", "sweep.yaml", "--workers=1", "--out=all")
    assert (place.path / "all/.sweep").is_dir() and len(list(place.path.glob("all/*/results.json"))) == 2
    assert (place.secret / "store").is_dir()
    assert place.holding() == []


def test_expressions_are_kept_where_they_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPD_TEST_FOLDER", "/secret")
    monkeypatch.setenv("SPD_TEST_NOTE", "7")
    typed = ["--seed_everything=${oc.env:SPD_TEST_NOTE}", "--artifact_dir=${oc.env:SPD_TEST_NONE,here}"]
    few = ["--data_dir=${oc.env:SPD_TEST_FOLDER}", "--trainer.default_root_dir=${data_dir}/${oc.env:SPD_TEST_NOTE}"]
    line = _Parsed(["fit", *in_file(few), *typed])
    options = line.config["fit"]
    assert (options.data_dir, options.seed_everything, options.artifact_dir) == ("/secret", 7, "here")
    assert options.trainer.default_root_dir == "/secret/7" and options.subspace.data_dir == "/secret"
    found = {place: text for place, text in line.expressions.items() if place[0] != "subspace"}
    assert found[("data_dir",)] == "${oc.env:SPD_TEST_FOLDER}"
    assert found[("seed_everything",)] == "${oc.env:SPD_TEST_NOTE}"
    assert "${oc.env:SPD_TEST_NOTE}" in found[("trainer", "default_root_dir")]


def test_a_configuration_that_is_printed_holds_expressions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPD_TEST_FOLDER", "/secret")
    with pytest.raises(SystemExit):
        _Parsed(["fit", "--data_dir=${oc.env:SPD_TEST_FOLDER}", "--print_config"])
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["data_dir"] == "${oc.env:SPD_TEST_FOLDER}" and "/secret" not in printed


def test_a_saved_configuration_is_read_as_the_parser_read_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    saved = {"seed_everything": "${oc.env:SPD_TEST_X}", "data_dir": "${oc.env:SPD_TEST_X}", "data": {"method": "ssd"}}
    (run := RunFolder(tmp_path)).config_file.write_text(yaml.safe_dump(saved))
    monkeypatch.setenv("SPD_TEST_X", "7")
    found = saved_values(run)
    assert (found["seed_everything"], found["data_dir"], found["data"]["method"]) == (7, "7", "ssd")
    monkeypatch.setenv("SPD_TEST_X", "seven")
    with pytest.raises(UserError, match="seed_everything"):
        saved_values(run)
    monkeypatch.delenv("SPD_TEST_X")
    with pytest.raises(UserError, match=r"config\.yaml: .*export SPD_TEST_X=VALUE"):
        saved_values(run)


class _Parsed(CommandLine):
    def instantiate_classes(self) -> None:
        """Nothing: what was parsed is looked at."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing."""
