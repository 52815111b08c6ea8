"""Studies: the files that are registered, cells and their keys, and the runner, killed and gone on with."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments import cells, run
from experiments.cells import Environment, cell_key, cell_name, collect, done_cells, keep_cell, read_cells
from experiments.run import Cells, chosen, run_study, status
from experiments.study import LACK_OF_TIME, Study, read_study, study_names
from spd_lightning.artifacts.files import write_json, write_jsonl
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.cli.parser import make_parser
from spd_lightning.errors import UserError
from spd_lightning.evaluation.best_decoding import read_grid
from spd_lightning.model.embedded import EMBEDDED_MODEL
from spd_lightning.model.load import load_tokenizer
from spd_lightning.report import write_results
from spd_lightning.tasks import load_task
from tests.settings import PYTHONPATH

ROOT = Path(__file__).parents[2]
HERE = Environment("c0ffee", "cpu", 1)
CONTENT: dict[str, Any] = {
    "name": "tiny",
    "status": "registered",
    "hypothesis": "none",
    "primary_contrast": {"a": "ssd", "b": "spd", "task": "letters"},
    "families": [
        {
            "name": "second",
            "correction": "holm",
            "contrasts": [
                {"a": "base", "b": "spd", "task": "letters"},
                {"a": "base/projected", "b": "ssd", "task": "letters"},
            ],
        }
    ],
    "smallest_effect": 3,
    "n": {"letters": 6, "arithmetic": 5},
    "blocks": [1, 2, 3],
    "lack_of_time": LACK_OF_TIME,
    "device": "cpu",
    "threads": 1,
    "cost": {"seconds_per_cell": 100, "how": "guessed"},
    "settings": {
        "subspace": {"task": "arithmetic", "rank": 4},
        "data": {"num_prompts": 8},
        "trainer": {"max_epochs": 1},
    },
    "arms": {
        "base": {"what": "the base", "options": {"data.method": "base", "evaluation.methods": ["base"]}},
        "ssd": {"what": "truncated sampling", "options": {"data.method": "ssd"}},
        "spd": {"what": "the method", "options": {"data.method": "spd"}},
        "psr": {"what": "plain sampling", "options": {"data.method": "psr"}, "blocks": [1]},
    },
}


def write_study(folder: Path, **changes: Any) -> Study:
    (folder / "tiny").mkdir(parents=True, exist_ok=True)
    (folder / "tiny" / "study.yaml").write_text(yaml.safe_dump({**CONTENT, **changes}, sort_keys=False))
    return read_study("tiny", folder)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return write_study(tmp_path / "studies")


# -- the file ----------------------------------------------------------------------------------------------------------


def test_cells_come_block_by_block(study: Study) -> None:
    names = [f"{arm.name}@{seed}" for arm, seed in study.cells()]
    assert names == ["base@1", "ssd@1", "spd@1", "psr@1", "base@2", "ssd@2", "spd@2", "base@3", "ssd@3", "spd@3"]
    assert [family.name for family in study.families] == ["primary", "second"]
    assert study.config(study.arm("ssd"), 2) == {
        "subspace": {"task": "arithmetic", "rank": 4},
        "data": {"num_prompts": 8, "method": "ssd"},
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "evaluation": {"tasks": ["letters", "arithmetic"], "limit": {"letters": 6, "arithmetic": 5}},
        "seed_everything": 2,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "other"}, "name='other' must be 'tiny'"),
        ({"status": "done"}, "status='done' one of registered, not run"),
        ({"lack_of_time": "smaller n"}, "lack_of_time 'fewer blocks"),
        ({"blocks": [1, 1]}, r"blocks=\[1, 1\] are different seeds"),
        ({"n": {"letters": 0}}, "n={'letters': 0} rows by task"),
        ({"colour": 1}, r"does not know \['colour'\]"),
        ({"primary_contrast": {"a": "ssd", "b": "sdp", "task": "letters"}}, "names no arm by b"),
        ({"primary_contrast": {"a": "ssd", "b": "spd", "task": "mmlu"}}, r"no task of n \(letters, arithmetic\)"),
        ({"families": [{"name": "x", "correction": "none", "contrasts": []}]}, "must be holm or exploratory"),
        ({"arms": {**CONTENT["arms"], "psr": {"blocks": [4]}}}, r"options and blocks \(some of \[1, 2, 3\]\)"),
        ({"arms": {**CONTENT["arms"], "psr": {"blocks": 1}}}, r"arm 'psr' has what, options and blocks"),
        ({"arms": {**CONTENT["arms"], "a/b": {}}}, "arm 'a/b' has letters"),
    ],
)
def test_a_study_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_study(tmp_path, **changes)


def test_an_unknown_study_and_one_that_is_no_yaml(tmp_path: Path, study: Study) -> None:
    with pytest.raises(UserError, match="Unknown study 'tyni'"):
        read_study("tyni", study.path.parents[1])
    study.path.write_text("a: [1")
    with pytest.raises(UserError, match="not valid YAML"):
        read_study("tiny", study.path.parents[1])
    for change in ({"arms": ["ssd"]}, {"families": [1]}, {"primary_contrast": "ssd"}, {"arms": {"a": None}}):
        study.path.write_text(yaml.safe_dump({**CONTENT, **change}))
        with pytest.raises(UserError, match=r"study\.yaml cannot be read as a study .* Mend it"):
            read_study("tiny", study.path.parents[1])


@pytest.mark.parametrize("name", study_names())
def test_every_arm_of_a_shipped_study_is_a_configuration_that_fit_takes(name: str, tmp_path: Path) -> None:
    found = read_study(name)
    parser = make_parser()
    for arm in found.arms:
        file = tmp_path / f"{arm.name}.yaml"
        file.write_text(yaml.safe_dump(found.config(arm, found.blocks[0])))
        parsed: Any = parser.parse_args(["fit", "--config", str(file)])
        assert parsed.fit.seed_everything == found.blocks[0]
        assert arm.what, f"{name}: say what {arm.name} is"
    assert (found.path.parent / "README.md").is_file()


@pytest.mark.parametrize("name", study_names())
def test_what_an_arm_scores_beside_its_student_stands_in_a_contrast(name: str) -> None:
    """Else its seconds are spent on rows that no table shows."""
    found = read_study(name)
    sides = {side for family in found.families for c in family.contrasts for side in (c.a, c.b)}
    for arm in found.arms:
        options = found.config(arm, found.blocks[0])["evaluation"]
        beside = [f"base_{shots}_shots" for shots in options.get("base_shots", ())]
        beside += ["projected"] * ("projected" in options["methods"])
        beside += ["base_best_decoding"] * bool(options.get("best_decoding"))
        assert {f"{arm.name}/{row}" for row in beside} <= sides


def test_the_grid_of_the_best_decoding_is_registered() -> None:
    found = read_study("decoding")
    options = found.config(found.arm("base"), 101)["evaluation"]
    grid = read_grid(options["best_decoding"])
    sampled = {(arm.options.get("data.temperature"), arm.options.get("data.top_p")) for arm in found.arms[1:]}
    assert grid[0].is_greedy and {(d.temperature, d.top_p) for d in grid[1:]} == sampled, "as its students sample"


@pytest.mark.parametrize("name", study_names())
def test_a_completion_has_room_for_the_answer(name: str, data_dir: str) -> None:
    """Nine in ten right answers of what is trained on, every calibration text, and every training text."""
    found = read_study(name)
    for arm in found.arms:
        options = found.config(arm, found.blocks[0])
        if options["data"]["method"] != "base":
            answer, text, prompt = _tokens_of(options["subspace"]["task"], data_dir)
            assert answer <= options["data"]["max_new_tokens"], arm.name
            assert text <= options["subspace"]["max_length"], arm.name
            assert prompt <= options["data"]["max_prompt_length"], arm.name
            assert prompt + options["data"]["max_new_tokens"] <= options["model"]["max_length"], arm.name


@functools.cache
def _tokens_of(task: str, data_dir: str) -> tuple[int, int, int]:
    """Tokens of 50 calibration pairs and 512 training prompts: that nine in ten answers fit into, that the longest text
    has, and the longest prompt."""
    tokenizer = load_tokenizer(EMBEDDED_MODEL)
    examples = load_task(task, data_dir, seed=101).examples("train", 512)
    made = [e.target for e in examples[:50]], [e.prompt + e.target for e in examples[:50]], [e.prompt for e in examples]
    answers, texts, prompts = (sorted(map(len, tokenizer(list(some))["input_ids"])) for some in made)
    return answers[45], texts[-1], prompts[-1]


def test_the_shipped_studies() -> None:
    assert len(study_names()) >= 1 and "primary" in study_names()


# -- cells -------------------------------------------------------------------------------------------------------------


def write_run(folder: Path, method: str, correct: str = "101010") -> None:
    """A finished run folder, as ``fit`` leaves one, with the letters it scored."""
    made = RunFolder(folder)
    rows = {"base": correct, **({method: correct[::-1]} if method != "base" else {})}
    for row, bits in rows.items():
        records = [
            {"id": f"{i}", "sample": 0, "correct": bit == "1", "answer": None if i == 5 else "A"}
            for i, bit in enumerate(bits)
        ]
        write_jsonl(RunFolder.sample_file(made.samples, "letters", row), records[::-1])
    write_json(made.environment_file, {"python": "3.11", "stages": {"corpus": 3}, "packages": {"torch": "2"}})
    write_json(made.keys_file, {"student": {"weights_sha256": "abc", "step": 4, "key": {}}} if method != "base" else {})
    stage = {"stage": "evaluate", "seconds": 2.5, "tokens": None, "skipped": False}
    trained = None if method == "base" else "arithmetic"
    write_results(folder, "f", trained, method, [], [], [stage], moved={"answers": []}, corpus_samples=[{"a": 1}])
    made.manifest.write()


def test_a_cell_names_the_subjects_of_its_examples(tmp_path: Path) -> None:
    made = RunFolder(tmp_path)
    subjects = {"a/0": "a", "a/1": "a", "b/0": "b", "a-b/0": "a-b"}
    records = [{"id": i, "sample": 0, "correct": True, "answer": "A", "group": g} for i, g in subjects.items()]
    write_jsonl(RunFolder.sample_file(made.samples, "mmlu", "base"), records)
    found = cells.verdicts(made, "base")["base"]["mmlu"]
    assert found["groups"] == [["a-b", 1], ["a", 2], ["b", 1]], "in the order of the sorted ids"


def finish(study: Study, results: Path, tmp_path: Path, arm: str, seed: int, where: Environment = HERE) -> Path:
    folder = tmp_path / f"{arm}{seed}{where.commit}{study.sha256[:6]}"
    write_run(folder, arm)
    starts = {"starts": 1, "wall_seconds": 60.0 * seed}
    return keep_cell(collect(study, where, study.arm(arm), seed, folder, starts), results)


def test_a_finished_cell_keeps_what_the_statistics_need(study: Study, tmp_path: Path) -> None:
    path = finish(study, tmp_path / "results", tmp_path, "ssd", 2)
    cell = json.loads(path.read_text())
    assert path.name == f"ssd.2.{cell['key'][:8]}.json" and path.parent.name == "tiny"
    ids = cells.ids_sha256([(str(i), 0) for i in range(6)])
    row = {"n": 6, "ids_sha256": ids, "answered": "111110"}
    assert cell["verdicts"] == {
        "base": {"letters": {**row, "correct": "101010"}},
        "student": {"letters": {**row, "correct": "010101"}},
    }
    assert (cell["task"], cell["method"], cell["student"]) == (
        "arithmetic",
        "ssd",
        {"weights_sha256": "abc", "step": 4},
    )
    assert cell["facts"] == {"moved": {"answers": []}} and cell["seconds"] == {"evaluate": 2.5}
    assert (cell["commit"], cell["device"], cell["threads"], cell["starts"]) == ("c0ffee", "cpu", 1, 1)
    assert cell["versions"] == {"python": "3.11", "stages": {"corpus": 3}, "torch": "2"}
    (read,) = read_cells(study, tmp_path / "results")
    assert read == {**cell, "exploratory": False}


def test_a_key_covers_study_commit_device_threads_arm_and_seed(study: Study, tmp_path: Path) -> None:
    other = write_study(tmp_path / "other", hypothesis="another")
    keys = {
        cell_key(study, HERE, "ssd", 1),
        cell_key(other, HERE, "ssd", 1),
        cell_key(study, HERE, "spd", 1),
        cell_key(study, HERE, "ssd", 2),
        cell_key(study, Environment("beef", "cpu", 1), "ssd", 1),
        cell_key(study, Environment("c0ffee", "H100", 1), "ssd", 1),
        cell_key(study, Environment("c0ffee", "cpu", 2), "ssd", 1),
    }
    assert len(keys) == 7 and cell_key(study, HERE, "ssd", 1) in keys


def test_what_is_done_here_and_whole_blocks_of_elsewhere(study: Study, tmp_path: Path) -> None:
    results, there = tmp_path / "results", Environment("c0ffee", "H100", 1)
    finish(study, results, tmp_path, "base", 1)
    for arm in ("base", "ssd", "spd"):
        finish(study, results, tmp_path, arm, 2, there)
    finish(study, results, tmp_path, "base", 3, there)
    whole = {("base", 2), ("ssd", 2), ("spd", 2)}
    assert done_cells(study, HERE, results) == {("base", 1)} | whole
    assert done_cells(study, there, results) == whole | {("base", 3)}
    assert done_cells(study, None, results) == whole


def test_results_of_another_version_of_the_file_are_exploratory(study: Study, tmp_path: Path) -> None:
    results = tmp_path / "results"
    finish(study, results, tmp_path, "base", 1)
    changed = write_study(tmp_path / "studies", smallest_effect=5)
    assert done_cells(changed, HERE, results) == set()
    finish(changed, results, tmp_path, "base", 1)
    assert [cell["exploratory"] for cell in read_cells(changed, results)] == [False, True]
    assert "exploratory: 1 cell of other versions" in status(changed, HERE, tmp_path / "work", results)


def test_a_damaged_result_is_named(study: Study, tmp_path: Path) -> None:
    path = finish(study, tmp_path / "results", tmp_path, "base", 1)
    path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match="cannot be read as a finished cell of schema 1"):
        read_cells(study, tmp_path / "results")


LETTERS = ("verdicts", "base", "letters")
SCORE = {"task": "letters", "method": "base", "metric": "acc", "value": 0.5}


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("seed",), 2, "schema 1 of tiny/base.2"),
        (("study",), "other", "schema 1 of other/base.1"),
        (("commit",), "beef", "it was changed"),
        (("schema",), 2, "schema 2 of"),
        ((*LETTERS, "correct"), "10101", "verdicts of base on letters are not whole"),
        ((*LETTERS, "answered"), "11111x", "verdicts of base on letters are not whole"),
        ((*LETTERS, "groups"), [["a", 5]], "subjects of letters are not whole"),
        ((*LETTERS, "correct"), "101011", "not those of its score"),
        (("verdicts",), None, "cannot be read as a finished cell"),
        (("threads",), [1], "it was changed"),
    ],
)
def test_a_cell_that_was_changed_is_named(
    study: Study, tmp_path: Path, place: tuple[str, ...], value: Any, said: str, sealed: bool
) -> None:
    """Cells of older code have no checksum: their key, their shape and their scores tell."""
    path = finish(study, tmp_path / "results", tmp_path, "base", 1)
    cell = {**json.loads(path.read_text()), "scores": [SCORE]}
    del cell["sha256"]
    cell = cells.sealed(cell) if sealed else cell
    path.write_text(json.dumps(cell))
    assert len(read_cells(study, tmp_path / "results")) == 1
    *nodes, last = place
    part: Any = cell
    for name in nodes:
        part = part[name]
    part[last] = value
    path.write_text(json.dumps(cell))
    said = "it was changed" if sealed and not said.startswith("schema") else said
    with pytest.raises(UserError, match=f"{path.name} .*{said}.* Put back the committed one, or remove"):
        read_cells(study, tmp_path / "results")


def test_every_committed_cell_is_as_it_was_written() -> None:
    files = sorted(cells.RESULTS.glob("*/*.json"))
    assert files and all(cells.read_cell(path)["schema"] == 1 for path in files)


def test_a_variant_of_a_task_keeps_its_name(tmp_path: Path) -> None:
    made = RunFolder(tmp_path)
    record = {"id": "a", "sample": 0, "correct": True, "answer": "A"}
    write_jsonl(RunFolder.sample_file(made.samples, "bbh:paper", "base"), [record])
    assert list(cells.verdicts(made, "base", ["bbh:paper"])["base"]) == ["bbh:paper"]


def test_of_two_runners_on_one_results_folder_the_first_ones_cell_stays(
    study: Study, tmp_path: Path, fits: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    path = finish(study, results, tmp_path, "base", 1)
    before = path.read_bytes()
    other = {**json.loads(before), "wall_seconds": 7.0}
    assert keep_cell(other, results) == path and path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    other["verdicts"] = {"base": {"letters": {**other["verdicts"]["base"]["letters"], "correct": "111111"}}}
    with pytest.raises(UserError, match="written by another runner meanwhile, with other verdicts"):
        keep_cell(other, results)
    assert path.read_bytes() == before
    runner = Cells(study, HERE, tmp_path / "work", results)
    assert runner.run([(study.arm("base"), 1)]) == [] and fits == []
    assert "base@1: done by another runner meanwhile" in capsys.readouterr().out


def test_code_that_is_not_committed_has_no_key(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    with pytest.raises(UserError, match="is no git repository"):
        cells.code_commit(tmp_path / "none")
    git("init", "-q")
    (tmp_path / "spd_lightning").mkdir()
    (tmp_path / "spd_lightning" / "a.py").write_text("1")
    with pytest.raises(UserError, match=r"holds changes that are not committed \(\?\? spd_lightning/a.py\)"):
        cells.code_commit(tmp_path)
    git("add", ".")
    git("commit", "-qm", "code")
    commit = cells.code_commit(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    git("add", ".")
    git("commit", "-qm", "results end no block")
    assert len(commit) == 40 and cells.code_commit(tmp_path) == commit


# -- which cells -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only", "names"),
    [
        ("spd", ["spd@1", "spd@2", "spd@3"]),
        ("spd@2,ssd@2", ["ssd@2", "spd@2"]),
        ("@3", ["base@3", "ssd@3", "spd@3"]),
        ("psr", ["psr@1"]),
        ("spd@999", ["spd@999"]),
        ("spd@1,spd", ["spd@1", "spd@2", "spd@3"]),
    ],
)
def test_only_names_cells(study: Study, only: str, names: list[str]) -> None:
    assert [f"{arm.name}@{seed}" for arm, seed in chosen(study, only)] == names


@pytest.mark.parametrize(
    ("only", "message"),
    [("sdp", "Unknown arm 'sdp'"), ("spd@x", "'x' is no seed"), ("psr@2", r"psr has blocks \(1,\)")],
)
def test_only_refuses_what_is_no_cell(study: Study, only: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        chosen(study, only)


# -- the runner --------------------------------------------------------------------------------------------------------


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the run folders that were fitted, in order; a fit writes a run folder at once."""
    begun: list[str] = []

    def fit(self: Any, command: list[str], log: Path) -> int:
        folder = Path(command[command.index("--run_dir") + 1])
        config = yaml.safe_load(Path(command[command.index("--config") + 1]).read_text())
        begun.append(folder.name.rsplit(".", 1)[0])
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("the end of a log")
        failing = os.environ.get("FAIL", "")
        if failing.startswith(begun[-1]) and begun.count(begun[-1]) <= int(failing.split(":")[2]):
            return int(failing.split(":")[1])
        write_run(folder, config["data"]["method"])
        return 0

    monkeypatch.setattr("spd_lightning.sweep.runner.Runner.run", fit)
    monkeypatch.setattr("experiments.cells.code_commit", lambda: "c0ffee")
    return begun


def test_what_is_done_is_not_run_again(study: Study, tmp_path: Path, fits: list[str]) -> None:
    work, results = tmp_path / "work", tmp_path / "results"
    finish(study, results, tmp_path, "ssd", 1)
    assert run_study(study, "@1", work, results) == 0
    assert fits == ["base.1", "spd.1", "psr.1"]
    assert len(read_cells(study, results)) == 4
    assert run_study(study, None, work, results, workers=2) == 0
    assert fits[3:4] == ["base.2"] and sorted(fits[4:6]) == ["spd.2", "ssd.2"] and fits[6] == "base.3"
    before = list(fits)
    assert run_study(study, None, work, results) == 0 and fits == before
    fresh = tmp_path / "fresh"  # elsewhere: the results alone are there
    assert run_study(study, None, fresh, results) == 0 and fits == before


def test_a_run_that_finished_before_its_cell_was_kept_is_collected(
    study: Study, tmp_path: Path, fits: list[str]
) -> None:
    name = cell_name("ssd", 1, cell_key(study, HERE, "ssd", 1))
    write_run(tmp_path / "work" / "tiny" / "runs" / name, "ssd")
    assert run_study(study, "ssd@1", tmp_path / "work", tmp_path / "results") == 0
    assert fits == [] and [c["arm"] for c in read_cells(study, tmp_path / "results")] == ["ssd"]


@pytest.mark.parametrize("how", ["a killed report", "samples", "results", "manifest"])
def test_a_run_that_is_not_as_it_was_left_is_gone_on_with(
    how: str, study: Study, tmp_path: Path, fits: list[str]
) -> None:
    """Its fit makes anew what is damaged, or says what to do; the cell is not made of it as it stands."""
    name = cell_name("ssd", 1, cell_key(study, HERE, "ssd", 1))
    write_run(tmp_path / "work" / "tiny" / "runs" / name, "ssd")
    made = RunFolder(tmp_path / "work" / "tiny" / "runs" / name)
    if how == "a killed report":
        made.manifest.take_away()
    else:
        file = {"samples": next(made.samples.iterdir()), "results": made.results, "manifest": made.manifest.file}[how]
        file.write_text(file.read_text().replace("true", "false", 1) if how == "samples" else "{")
    assert run_study(study, "ssd@1", tmp_path / "work", tmp_path / "results") == 0
    assert fits == ["ssd.1"] and len(read_cells(study, tmp_path / "results")) == 1


def test_a_cell_that_lacks_a_benchmark_is_not_kept(
    study: Study, tmp_path: Path, fits: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = cell_name("ssd", 1, cell_key(study, HERE, "ssd", 1))
    write_run(folder := tmp_path / "work" / "tiny" / "runs" / name, "ssd")
    lacks = [{"task": "letters", "reason": "no sandbox works here"}]
    write_results(folder, "f", None, "ssd", [], [], [], not_run=lacks)
    RunFolder(folder).manifest.write()
    assert run.lacking(folder) == "letters was not run: no sandbox works here"
    assert run_study(study, "ssd@1", tmp_path / "work", tmp_path / "results") == 0
    assert fits == ["ssd.1"], "it is gone on with: what was missing may be there by now"


def test_a_fit_that_leaves_a_part_is_told(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("spd_lightning.sweep.runner.Runner.run", lambda self, command, log: 0)
    monkeypatch.setattr("experiments.cells.code_commit", lambda: "c0ffee")
    assert run_study(study, "ssd@1", tmp_path / "work", tmp_path / "results") == 1
    assert "--- ssd@1 is not whole" in (err := capsys.readouterr().err) and "it was not scored" in err
    assert not read_cells(study, tmp_path / "results")


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"starts": "x", "wall_seconds": 1}'])
def test_damaged_starts_of_a_cell_stop_no_other(
    text: str, study: Study, tmp_path: Path, fits: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    name = cell_name("ssd", 1, cell_key(study, HERE, "ssd", 1))
    (work / "tiny" / "starts").mkdir(parents=True)
    (work / "tiny" / "starts" / f"{name}.json").write_text(text)
    assert run_study(study, "@1", work, tmp_path / "results") == 1
    err = capsys.readouterr().err
    assert f"{name}.json" in err and "Remove it: they are then counted anew" in err
    assert {cell["arm"] for cell in read_cells(study, tmp_path / "results")} == {"base", "spd", "psr"}


@pytest.mark.parametrize(
    ("failing", "failed", "starts"), [("ssd.1:137:1", 0, 2), ("ssd.1:137:9", 1, 2), ("ssd.1:2:9", 1, 1)]
)
def test_a_cell_that_fails_stops_no_other(
    study: Study,
    tmp_path: Path,
    fits: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failing: str,
    failed: int,
    starts: int,
) -> None:
    """One that a signal ended is started once more."""
    monkeypatch.setenv("FAIL", failing)
    assert run_study(study, "@1", tmp_path / "work", tmp_path / "results") == failed
    assert fits.count("ssd.1") == starts and fits[-2:] == ["spd.1", "psr.1"]
    kept = {cell["arm"]: cell for cell in read_cells(study, tmp_path / "results")}
    assert ("ssd" in kept) == (failed == 0) and {"base", "spd", "psr"} <= set(kept)
    if failed:
        assert "the end of a log" in capsys.readouterr().err
    else:
        assert kept["ssd"]["starts"] == 2


def test_a_throw_away_cell_leaves_nothing(
    study: Study, tmp_path: Path, fits: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    work, results = tmp_path / "work", tmp_path / "results"
    assert run_study(study, "ssd@999", work, results) == 0
    assert fits == ["ssd.999"] and not results.exists()
    assert [p.name for p in work.rglob("*") if p.is_file()] in ([], [".lock"])
    assert "ssd@999" in (out := capsys.readouterr().out) and "(evaluate 2); nothing is kept" in out
    with pytest.raises(UserError, match="mixes blocks of the study with throw-away cells"):
        run_study(study, "ssd@999,ssd@1", work, results)


def test_a_study_that_is_not_to_be_run_runs_throw_away_cells_alone(tmp_path: Path, fits: list[str]) -> None:
    study = write_study(tmp_path / "studies", status="not run")
    with pytest.raises(UserError, match=r"has status: not run\. Set it to registered"):
        run_study(study, None, tmp_path / "work", tmp_path / "results")
    assert run_study(study, "ssd@999", tmp_path / "work", tmp_path / "results") == 0 and fits == ["ssd.999"]


def test_status_says_what_is_missing_and_how_long_that_takes(study: Study, tmp_path: Path, fits: list[str]) -> None:
    work, results = tmp_path / "work", tmp_path / "results"
    assert "0 of 10 cells done, about 0.3 h left" in status(study, HERE, work, results)
    finish(study, results, tmp_path, "ssd", 2)
    (work / "tiny" / "runs" / cell_name("spd", 2, cell_key(study, HERE, "spd", 2))).mkdir(parents=True)
    finish(
        study, results, tmp_path, "spd", 1, Environment("c0ffee", "a card", 1)
    )  # how long one takes there is not asked
    lines = status(study, HERE, work, results).splitlines()
    assert "1 of 10 cells done" in lines[0] and "on cpu with 1 threads" in lines[0]
    assert {"ssd@2: done", "ssd@1: missing, about 120 s", "spd@2: begun, about 120 s"} <= set(lines)
    assert "on a card with 1 threads: 1 of 10 cells done" in status(
        study, Environment("c0ffee", "a card", 1), work, results
    )


def test_finished_cells_are_committed_when_asked(study: Study, tmp_path: Path, fits: list[str]) -> None:
    results = tmp_path / "clone" / "results"
    results.mkdir(parents=True)

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(results), *words], check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    git("config", "user.name", "a")
    git("config", "user.email", "a@b")
    assert run_study(study, "base@1", tmp_path / "work", results, commit=True) == 0
    assert git("log", "--format=%s").splitlines() == ["Result: tiny, base in block 1"] and not git("status", "--short")


def test_mistakes_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["nothing"]) == 2 and "Unknown study 'nothing'" in capsys.readouterr().err
    assert run.main(["primary", "--workers", "0"]) == 2 and "--workers=0 is below 1" in capsys.readouterr().err


DRIVER = """
import sys
from pathlib import Path
from experiments import cells, run, study
cells.code_commit = lambda: "c0ffee"
here = Path(sys.argv[1])
sys.exit(run.run_study(study.read_study("tiny", here / "studies"), None, here / "work", here / "results"))
"""


@pytest.mark.slow
def test_killed_at_any_point_nothing_is_done_twice(tmp_path: Path, tiny_model_dir: str) -> None:
    """A real model: killed without warning while the second cell generates, it goes on where it stood."""
    settings = {
        "subspace": {"model_name_or_path": tiny_model_dir, "task": "arithmetic", "num_examples": 4, "max_length": 1024},
        "data": {
            "num_prompts": 96,
            "max_prompt_length": 1024,
            "max_new_tokens": 48,
            "dtype": "float32",
            "batch_size": 2,
        },
        "model": {"max_length": 1024, "batch_size": 8, "loss_on": "question"},
        "trainer": {"max_epochs": 1, "devices": 1, "enable_progress_bar": False},
    }
    arms = {name: CONTENT["arms"][name] for name in ("base", "ssd", "spd")}
    study = write_study(
        tmp_path / "studies", settings=settings, blocks=[1], arms=arms, n={"letters": 6, "arithmetic": 2}
    )
    work, results = tmp_path / "work", tmp_path / "results"
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]

    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 300
    while not (parts := [p for p in work.glob("artifacts/corpus-*/part-0.jsonl") if p.stat().st_size > 1500]):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr and process.stderr.read()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    (first,) = read_cells(study, results)
    assert first["arm"] == "base"
    before = (next((results / "tiny").glob("*.json")).stat().st_mtime_ns, parts[0].read_bytes())
    time.sleep(3)  # the fit ends with its parent
    left = parts[0].read_bytes()
    time.sleep(1)
    assert left.startswith(before[1]) and parts[0].read_bytes() == left, "nobody writes any more"

    subprocess.run(command, env=environment, check=True, capture_output=True)
    found = read_cells(study, results)
    assert [cell["arm"] for cell in found] == ["base", "ssd", "spd"]
    assert next((results / "tiny").glob("base.*")).stat().st_mtime_ns == before[0]
    assert [cell["starts"] for cell in found] == [1, 2, 1]
    corpus = next((work / "tiny" / "runs").glob("ssd.*")) / "corpus" / "generations.jsonl"
    lines = before[1].split(b"\n")[1:-1]  # behind the fingerprint, and without the line that was being written
    begun = [json.loads(line.rpartition(b"\t")[0]) for line in lines]  # a checksum stands behind the tab
    final = {(r["id"], r["sample"]): r for r in map(json.loads, corpus.read_bytes().splitlines())}
    assert begun and all(final[r["id"], r["sample"]] == r for r in begun) and len(final) == 96
    rows = [cell["verdicts"]["base"]["letters"] for cell in found]
    assert rows[0] == rows[1] == rows[2] and rows[0]["n"] == 6, "all arms of a block share rows and base"
    for cell in found[1:]:
        assert cell["facts"]["benchmarks"]["letters.base"]["from_store"], "base scores are computed once"
        assert cell["verdicts"]["student"]["letters"]["ids_sha256"] == rows[0]["ids_sha256"]

    again = Cells(study, HERE, work, results)
    assert again.run([(arm, seed) for arm, seed in study.cells() if arm.name == "none"]) == []
    assert (
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.count("done in")
        == 0
    )


def test_a_status_that_nobody_reads_to_its_end_is_no_error() -> None:
    command = f"{sys.executable} -m experiments.run primary --status | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("primary (registered), ") and "Error" not in done.stderr
    assert done.returncode in (0, 141), done.stderr
