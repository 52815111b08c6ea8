"""What a notebook shows of each public object, and the notebook among the examples."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import spd_lightning
from spd_lightning import BenchmarkCallback, CapabilitySubspace, SelfGenerationDataModule
from spd_lightning.evaluation.scores import BenchmarkResult, Score
from spd_lightning.generation.corpus import Corpus

EXAMPLES = Path(__file__).parents[2] / "examples"


def score(metric: str = "acc", value: float = 0.25) -> Score:
    return Score(
        method="spd", task="letters", split="out", protocol="standard", metric=metric, value=value, n=4, stderr=None,
        ci95=(0.05, 0.7), seed=1, isolation=None, seconds=1.0,
    )  # fmt: skip


def subspace() -> CapabilitySubspace:
    bases = {(1, side): torch.eye(4)[:, :2] for side in ("k", "v")}
    spectra = {key: torch.tensor([2.0, 1.0, 1.0, 0.0]) for key in bases}
    return CapabilitySubspace(bases, spectra, {"model": "tiny", "task": "<arithmetic>"})  # type: ignore[arg-type]


def corpus(folder: Path) -> Corpus:
    found = Corpus(folder, "f")
    found.append([{"id": "a", "sample": 0, "prompt": "1 < 2?", "completion": "<b>yes</b>"}])
    return found


def test_objects_are_one_line_of_facts(tmp_path: Path) -> None:
    data = SelfGenerationDataModule(task="arithmetic", num_prompts=4, method="ssd", model_name_or_path="x")
    assert (
        repr(data)
        == str(data)
        == (
            "SelfGenerationDataModule(task=arithmetic, model=x, num_prompts=4, method=ssd, subspace=None, keep=all, "
            "texts=0)"
        )
    )
    assert repr(subspace()) == (
        "CapabilitySubspace(model=tiny, task=<arithmetic>, layers=[1], sides=['k', 'v'], rank=2, kv_dim=[4], "
        "strength=1.0)"
    )
    assert repr(corpus(tmp_path)) == f"Corpus(folder={tmp_path}, completions=1, finished=False)"
    assert repr(score()) == "Score(task=letters, method=spd, metric=acc, value=25.0%, ci95=[5.0, 70.0], n=4)"
    assert "value=0.250 nats" in repr(score("nll_per_token"))
    result = BenchmarkResult("letters", "spd", "standard", "letter", scores=[score()])
    assert repr(result) == "BenchmarkResult(task=letters, method=spd, protocol=standard, records=0)"
    callback = BenchmarkCallback(["letters"], methods=["base"])
    callback.results.append(result)
    assert repr(callback) == "BenchmarkCallback(tasks=['letters'], methods=['base'], results=1)"
    assert "25.0%" in callback._repr_html_()


def test_a_notebook_shows_tables_and_no_markup_of_the_data(tmp_path: Path) -> None:
    shown = subspace()._repr_html_()
    assert "&lt;arithmetic&gt;" in shown and "83.3%" in shown and shown.count("<tr>") == shown.count("</tr>")
    unfinished = corpus(tmp_path)
    assert "completions" in unfinished._repr_html_() and unfinished.torn == 0
    unfinished.path.write_text(json.dumps({"id": "a", "prompt": "1 < 2?", "completion": "<b>yes</b>"}) + "\n")
    assert "&lt;b&gt;yes&lt;/b&gt;" in unfinished._repr_html_()
    unfinished.path.write_text("{\n")
    assert "Corpus" in unfinished._repr_html_(), "a damaged file is no reason not to be shown"


def test_empty_and_foreign_objects_can_be_shown() -> None:
    assert repr(CapabilitySubspace({}, {})).startswith("CapabilitySubspace(layers=[], sides=[], rank=None")
    assert CapabilitySubspace({}, {})._repr_html_()


def test_the_public_names_are_listed_before_they_are_imported() -> None:
    code = "import sys, spd_lightning as s; assert set(s.__all__) <= set(dir(s)) and 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "__version__" in dir(spd_lightning)


# -- the notebook ------------------------------------------------------------------------------------------------------


def cells() -> list[str]:
    return ["".join(c["source"]) for c in NOTEBOOK["cells"] if c["cell_type"] == "code"]


NOTEBOOK: dict[str, Any] = json.loads((EXAMPLES / "first_hour.ipynb").read_text(encoding="utf-8"))


def test_the_notebook_is_one_that_jupyter_opens() -> None:
    assert NOTEBOOK["nbformat"] == 4 and NOTEBOOK["nbformat_minor"] >= 5
    assert NOTEBOOK["metadata"]["kernelspec"]["name"] == "python3"
    names = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(names)) == len(names) and all(name.replace("-", "").isalnum() for name in names)
    for cell in NOTEBOOK["cells"]:
        needed = {"cell_type", "id", "metadata", "source"}
        needed |= {"outputs", "execution_count"} if cell["cell_type"] == "code" else set()
        assert set(cell) == needed and cell.get("outputs", []) == [] and cell.get("execution_count") is None
    assert cells()[0].startswith('MODEL = "smollm2-135m-instruct"')


def run_cells(model: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    for source in [cells()[0].replace("smollm2-135m-instruct", model), *cells()[1:]]:
        exec(compile(source, "first_hour.ipynb", "exec"), names)
        last = source.strip().splitlines()[-1]
        if last.isidentifier():  # Jupyter shows it
            assert "<table" in names[last]._repr_html_()
    assert (folder / "subspace.safetensors").is_file() and names["scores"].score_rows


def test_the_notebook_runs_on_a_tiny_model(
    tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_cells(tiny_model_dir, tmp_path, monkeypatch)


@pytest.mark.slow
def test_the_notebook_runs(smollm2: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_cells(smollm2, tmp_path, monkeypatch)
