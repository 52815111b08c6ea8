"""Artifacts of every kind, damaged: told with the file, or taken where what is left is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spd_lightning.artifacts.files import read_jsonl
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.generation.corpus import Corpus
from spd_lightning.model.checkpoint_files import model_files, weight_names
from spd_lightning.model.damage import check_files, damage, read_object
from spd_lightning.report.runs import read_run
from spd_lightning.report.schema import check_results
from spd_lightning.subspace.moments import Moments
from spd_lightning.subspace.subspace import CapabilitySubspace
from tests.fuzz.cases import cases, damaged, jsonl, result_of, some_changed
from tests.unit.report.test_report import make_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


def subspace_bytes(folder: Path) -> bytes:
    """A subspace of two sites."""
    bases: dict[Any, Any] = {(0, side): torch.eye(8)[:, :2].contiguous() for side in ("k", "v")}
    spectra = {site: torch.linspace(1, 0.1, 8) for site in bases}
    metadata = {"model": "m", "rank": 2, "strength": 1.0, "energy": {"0.k": 0.9}}
    return CapabilitySubspace(bases, spectra, metadata).save(folder / "whole.safetensors").read_bytes()


@cases(700)
@given(st.data())
def test_subspaces(folder: Path, data: st.DataObject) -> None:
    path = folder / "subspace.safetensors"
    path.write_bytes(data.draw(damaged(subspace_bytes(folder))))
    found = result_of(lambda: CapabilitySubspace.load(path))
    if found is not None:
        assert found.layers and 0 <= found.strength <= 1
        for layer, side in found.sites:
            assert found.projector(layer, side).shape == (8, 8) and len(found.singular_values(layer, side)) == 8
    result_of(lambda: Moments.load(path))


RECORD = {
    **{"id": "train/0", "sample": 0, "prompt": "q", "completion": " 4", "token_ids": [1, 2], "num_tokens": 2},
    **{"finish_reason": "stop", "seed": 42},
}
RECORDS = [{**RECORD, "id": f"train/{i}"} for i in range(3)]


@cases(400)
@given(st.data())
def test_corpora(folder: Path, data: st.DataObject) -> None:
    part = folder / "corpus" / "part-0.jsonl"
    part.unlink(missing_ok=True)
    Corpus(part.parent, "f").append(RECORDS)
    part.write_bytes(data.draw(damaged(part.read_bytes())))
    corpus = Corpus(part.parent, "f")
    found = result_of(corpus.finished)
    assert found is None or found <= {("train/0", 0), ("train/1", 0), ("train/2", 0)}
    if found is not None:  # a torn end is cut off, and the rest goes on
        corpus.append(RECORDS[:1])
        assert ("train/0", 0) in Corpus(part.parent, "f").finished()


NAMES = ("adapter_config.json", "config.json", "model.safetensors", "model.safetensors.index.json", "a.bin", "a.gguf")


@cases(400)
@given(damaged(json.dumps({"base_model_name_or_path": "m", "r": 8, "target_modules": ["q_proj"]}).encode()), st.data())
def test_model_files(folder: Path, content: bytes, data: st.DataObject) -> None:
    model = folder / "model"
    model.mkdir(exist_ok=True)
    name = data.draw(
        st.sampled_from(
            [
                "adapter_config.json",
                "config.json",
                "model.safetensors",
                "model.safetensors.index.json",
                "a.bin",
                "a.gguf",
            ]
        )
    )
    (model / name).write_bytes(content)
    try:
        result_of(lambda: damage(model / name))
        result_of(lambda: check_files(model, [name]))
        if name.endswith(".json"):
            result_of(lambda: read_object(model / name))
        result_of(lambda: weight_names(model))
        result_of(lambda: model_files(model))
    finally:
        (model / name).unlink()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run")


FILES = ("config.yaml", "environment.json", "keys.json", "manifest.json", "results.json", "logs/metrics.csv")


@cases(300)
@given(st.data())
def test_files_of_a_run(run: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(FILES))
    path = run / name
    before = path.read_bytes() if path.is_file() else None
    path.write_bytes(data.draw(damaged(before or b'{"subspace": {"a": 1}}')))
    try:
        folder = RunFolder(run)
        for act in (folder.configuration, folder.environment, folder.keys, folder.rounds, folder.sample_files):
            result_of(act)
        made: Any = result_of(lambda: read_run(run))
        if made is not None:
            result_of(lambda: (made.completions, made.samples, made.losses))
    finally:
        path.unlink()
        if before is not None:
            path.write_bytes(before)


@cases(500)
@given(st.data())
def test_results(run: Path, data: st.DataObject) -> None:
    results = json.loads((run / "results.json").read_text())
    place = data.draw(st.sampled_from(["", "scores", "comparisons", "stages"]))
    if place:
        at = data.draw(st.integers(0, len(results[place]) - 1))
        results[place][at] = data.draw(some_changed(results[place][at]))
    else:
        results = data.draw(some_changed(results))
    result_of(lambda: check_results(results, "results.json"))


@cases(300)
@given(damaged(jsonl(RECORDS)))
def test_json_lines(folder: Path, data: bytes) -> None:
    path = folder / "rows.jsonl"
    path.write_bytes(data)
    result_of(lambda: list(read_jsonl(path)))
