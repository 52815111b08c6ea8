"""Two runs side by side: equal ones agree, every difference is found, and what cannot be compared is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from spd_lightning.artifacts.expressions import digest
from spd_lightning.artifacts.files import write_jsonl
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.errors import UserError
from spd_lightning.pipeline.agreement import Check, Reference, agreement_table, conclusion, differing_lines
from spd_lightning.report.render import text_table
from spd_lightning.report.schema import write_results
from spd_lightning.subspace.choice import subspace_from_moments
from spd_lightning.subspace.moments import Moments, SiteMoments

CONFIG: dict[str, Any] = {"run_dir": None, "artifact_dir": None, "data": {"num_prompts": 3}, "trainer": {"devices": 1}}
KEY = {"dtype": "float32"}


def some_moments() -> Moments:
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Moments({(0, "k"): SiteMoments(rows.T @ rows, rows.sum(0), 50)}, {"model": "m"})


def own(moments: Moments) -> tuple[Any, Any, Any]:
    """Key, moments and weight of the one task."""
    return {"t": KEY}, {"t": moments}, {"t": 1.0}


def make_run(folder: Path) -> Path:
    """A finished run of its own store, with every file that is compared."""
    run, moments = folder / "run", some_moments()
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    write_results(run, "f", "t", "spd", [], [], [])
    write_jsonl(run / "corpus" / "generations.jsonl", [{"id": "a", "sample": 0}, {"id": "b", "sample": 0}])
    for method in ("base", "spd"):
        rows = [{"id": i, "sample": 0, "correct": i == "x"} for i in ("x", "y")]
        write_jsonl(run / "samples" / f"letters.{method}.jsonl", rows)
    (run / "adapter").mkdir()
    save_file({"a": torch.ones(2, 3), "b": torch.zeros(3)}, run / "adapter" / "adapter_model.safetensors")
    subspace_from_moments(moments, rank=3).save(run / "subspace" / "subspace.safetensors")
    store = ArtifactStore(folder / ".artifacts")
    moments.save(store.folder("moments", KEY) / "moments.safetensors")
    store.complete(store.folder("moments", KEY), KEY, statistics={})
    return run


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    one = make_run(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    return one, tmp_path / "two" / "run"


def reference(runs: tuple[Path, Path], **changes: Any) -> Reference:
    return Reference(runs[0], RunFolder(runs[1]), ArtifactStore(runs[1].parent / ".artifacts"), {**CONFIG, **changes})


def broken(runs: tuple[Path, Path]) -> list[tuple[str, float]]:
    return [(c.artifact, c.value) for c in reference(runs).check_run(RunFolder(runs[1])) if not c.holds]


def test_equal_runs_agree_whatever_the_number_of_devices(runs: tuple[Path, Path]) -> None:
    checks = reference(runs, trainer={"devices": 2}).check_run(RunFolder(runs[1]))
    assert len(checks) == 7 and all(c.holds and c.value == 0 for c in checks)
    assert "BROKEN" not in (shown := text_table(agreement_table(checks))) and "for information" in shown


def test_another_completion_verdict_or_weight_is_found(runs: tuple[Path, Path]) -> None:
    corpus, two = runs[1] / "corpus" / "generations.jsonl", runs[1]
    corpus.write_bytes(corpus.read_bytes().replace(b'"b"', b'"c"'))
    assert broken(runs) == [("corpus", 1)]
    shutil.copy(runs[0] / "corpus" / "generations.jsonl", corpus)
    for method in ("base", "spd"):  # the base must answer alike; the student's close decisions are for information
        rows = [{"id": "x", "sample": 0, "correct": False}, {"id": "y", "sample": 0, "correct": False}]
        write_jsonl(two / "samples" / f"letters.{method}.jsonl", rows)
    assert broken(runs) == [("letters, base", 1)]
    write_jsonl(two / "samples" / "letters.base.jsonl", [{"id": "x", "sample": 0, "correct": True}])
    write_jsonl(two / "samples" / "letters.spd.jsonl", [{"id": "x", "sample": 0, "correct": True}])
    assert broken(runs) == [("letters, base", 1), ("letters, spd", 1)], "an example is missing in both"
    shutil.copytree(runs[0] / "samples", two / "samples", dirs_exist_ok=True)
    weights = load_file(two / "adapter" / "adapter_model.safetensors")
    for size, found in ((1e-4, []), (1e-2, ["adapter"]), (float("nan"), ["adapter"])):
        save_file({**weights, "a": weights["a"] * (1 + size)}, two / "adapter" / "adapter_model.safetensors")
        assert [name for name, _ in broken(runs)] == found
    assert "BROKEN" in text_table(agreement_table(reference(runs).check_run(RunFolder(two))))


@pytest.mark.parametrize(("change", "holds"), [(0.0, True), (1e-12, True), (1e-8, False)])
def test_moments_are_bound_by_1e_10(runs: tuple[Path, Path], change: float, holds: bool) -> None:
    moments = some_moments()
    moments.sites[0, "k"].second_moment *= 1 + change
    subspace = runs[1] / "subspace" / "subspace.safetensors"
    checks = reference(runs).check_extraction(*own(moments), subspace, torch.device("cpu"))
    assert [c.holds for c in checks] == [holds, True, True]
    gpu = reference(runs).check_extraction(*own(moments), subspace, torch.device("cuda"))
    assert all(c.holds for c in gpu), "a GPU's attention adds gradients in no fixed order"


def test_another_subspace_or_count_is_found(runs: tuple[Path, Path], tmp_path: Path) -> None:
    moments = some_moments()
    moments.sites[0, "k"].count = 51
    subspace_from_moments(some_moments(), rank=3, basis="complement").save(tmp_path / "other.safetensors")
    checks = reference(runs).check_extraction(*own(moments), tmp_path / "other.safetensors", torch.device("cpu"))
    assert [(c.artifact, c.holds) for c in checks] == [("moments", True), ("moments", False), ("subspace", False)]


def test_what_cannot_be_compared_is_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = runs
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        Reference(tmp_path / "nowhere", RunFolder(two), ArtifactStore(tmp_path), CONFIG)
    with pytest.raises(UserError, match=r"shares the artifact store .*one/\.artifacts"):
        Reference(one, RunFolder(two), ArtifactStore(one.parent / ".artifacts"), CONFIG)
    with pytest.raises(UserError, match=r"other settings \(data\.num_prompts: 3 there, 4 here\)"):
        reference(runs, data={"num_prompts": 4})
    for path in runs:  # the values of options from the environment are compared, not how they are written
        (path / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "data": {"num_prompts": "${oc.env:N}"}}))
        (path / "environment.json").write_text(json.dumps({"values": {"data.num_prompts": digest(3)}}))
    reference(runs)
    reference(runs, data={"num_prompts": f"${{oc.env:OTHER}}, sha256 {digest(3)}"})
    with pytest.raises(UserError, match=r"other settings \(data\.num_prompts: '\$\{oc\.env:N\}, sha256 \w{16}' there"):
        reference(runs, data={"num_prompts": f"${{oc.env:N}}, sha256 {digest(4)}"})
    (one / "results.json").unlink()
    with pytest.raises(UserError, match=r"its evaluation has not finished"):
        reference(runs)


def test_moments_of_another_dtype_are_refused(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KEY, "dtype", "bfloat16")
    with pytest.raises(UserError, match=r"holds no moments of these settings"):
        reference(runs).check_extraction(
            *own(some_moments()), runs[1] / "subspace" / "subspace.safetensors", torch.device("cpu")
        )


def test_benchmarks_that_a_later_command_added_are_not_compared(runs: tuple[Path, Path]) -> None:
    write_results(runs[0], "f", "t", "spd", [], [], [], added={"bbh:paper": []})
    write_jsonl(runs[0] / "samples" / "bbh_paper.base.jsonl", [{"id": "x", "sample": 0, "correct": True}])
    assert broken(runs) == []
    write_results(runs[0], "f", "t", "spd", [], [], [])
    assert broken(runs) == [("bbh_paper, base", 1)], "its own are"


def test_the_conclusion_names_what_differs_first_in_the_order_of_the_stages(runs: tuple[Path, Path]) -> None:
    checks = reference(runs).check_run(RunFolder(runs[1]))
    assert conclusion(checks) == "Reproduced: every bound holds."
    assert list(dict.fromkeys(c.artifact for c in checks)) == ["corpus", "adapter", "letters, base", "letters, spd"]
    checks += [Check("a", "for information", 3.0, None), Check("b", "lines", 2.0), Check("c", "lines", 1.0)]
    assert conclusion(checks) == "Not reproduced. What differs first: b, lines: 2 (bound 0)."


def test_differing_lines_counts_places() -> None:
    assert differing_lines(b"a\nb\n", b"a\nb\n") == 0
    assert differing_lines(b"a\nb\n", b"a\nc\nd\n") == 2
    assert differing_lines(b"a\nb\n", b"a\nb") == 1, "a missing end of line is another file"
    assert differing_lines(b"", b"a") == 1
