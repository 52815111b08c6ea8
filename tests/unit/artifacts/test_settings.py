"""Options of a run: dotted names, what differs, and which of them results depend on."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from spd_lightning.artifacts.settings import (
    SECTIONS,
    SETTINGS,
    differences,
    flatten,
    in_student_key,
    is_compared,
    is_needed,
    listed,
    setting,
    settings_of,
)
from spd_lightning.cli.parser import make_parser, option_names
from spd_lightning.report.runs import options
from spd_lightning.subspace.calibration import subspace_key

DEMO = Path(__file__).parents[3] / "configs" / "demo.yaml"


@pytest.fixture(scope="module")
def demo() -> dict[str, Any]:
    """Every option of ``fit`` as the demo's configuration sets it, those that a link sets too."""
    parsed: Any = make_parser().parse_args(["fit", "--config", str(DEMO)])
    return parsed.fit.as_dict()


def test_nested_options_are_dotted() -> None:
    nested = {"seed": 1, "subspace": {"rank": 8, "layers": [1, 2]}, "trainer": {"logger": {"name": "w"}}}
    assert flatten(nested) == {
        "seed": 1,
        "subspace.rank": 8,
        "subspace.layers": [1, 2],
        "trainer.logger.name": "w",
    }


def test_differences_name_both_sides_and_shorten_hashes() -> None:
    there = {"rank": 8, "model": "0" * 64, "same": {"a": 1}}
    here = {"rank": 16, "model": "1" * 64, "same": {"a": 1}, "new": None, "task": "x"}
    assert differences(there, here) == [
        f"model: {'0' * 12 + '...'!r} there, {'1' * 12 + '...'!r} here",
        "rank: 8 there, 16 here",
        "task: None there, 'x' here",
    ]
    assert differences({"layers": (1, 2)}, {"layers": [1, 2]}) == []  # as they read in JSON


def test_what_a_run_is_does_not_depend_on_its_place() -> None:
    run = {"seed": 1, "run_dir": "a", "subspace": {"rank": 8, "device_map": None}, "trainer": {"devices": 1}}
    other = {"seed": 1, "run_dir": "b", "subspace": {"rank": 8, "device_map": "auto"}, "trainer": {"devices": 8}}
    assert settings_of(run) == settings_of(other) == {"seed": 1, "subspace.rank": 8}
    assert settings_of({**run, "seed": 2}) != settings_of(run)


def test_a_callback_counts_since_it_may_stop_early() -> None:
    assert settings_of({"trainer": {"callbacks": None}}) == {}
    assert "trainer.callbacks" in settings_of({"trainer": {"callbacks": [{"class_path": "EarlyStopping"}]}})


def test_every_option_of_fit_is_in_the_table(demo: dict[str, Any]) -> None:
    """By its name, by the option that it is an entry of, or by its section; above the sections by its name alone."""
    typed = {name.removeprefix("--").removesuffix("+") for name in option_names("fit")}
    known = typed | set(flatten(demo)) | set(demo)
    known -= {"help", "print_config", *(name for name in known if name.endswith(".help"))}
    assert {name for name in known if "." not in name} - set(SETTINGS) == set(SECTIONS)
    assert {name.split(".")[0] for name in known if "." in name} <= set(SECTIONS)


def test_the_table_has_no_option_that_fit_does_not_know(demo: dict[str, Any]) -> None:
    known = {name.removeprefix("--") for name in option_names("fit")} | set(flatten(demo))
    assert set(SETTINGS) - known == set()


def test_what_makes_the_demo_the_run_it_is(demo: dict[str, Any]) -> None:
    """Each name that joins or leaves is another fingerprint for every run that there is."""
    sections = {
        "": "artifact_dir ckpt_path config data_dir data_revision dry_run estimate model_revision quiet run_dir",
        "subspace.": "device_map",
        "data.": "corpus_dir device_map",
        "evaluation.": "allow_code_execution device_map when",
        "trainer.": "accelerator callbacks default_root_dir detect_anomaly devices enable_model_summary "
        "enable_progress_bar log_every_n_steps logger num_nodes plugins profiler strategy",
    }
    left_out = {f"{section}{name}" for section, names in sections.items() for name in names.split()}
    assert set(flatten(demo)) - set(settings_of(demo)) == left_out


def test_an_option_that_is_part_of_another_means_what_that_does() -> None:
    assert setting("trainer.logger.init_args.name") == SETTINGS["trainer.logger"]
    assert setting("evaluation.limit.arithmetic") == SETTINGS["evaluation.limit"]
    assert setting("data.engine") == SECTIONS["data"]


def test_what_changes_no_weight_is_in_no_key_of_a_student() -> None:
    left_out = "enable_checkpointing limit_test_batches num_sanity_val_steps accelerator devices logger strategy"
    assert not any(in_student_key(f"trainer.{name}") for name in left_out.split())
    assert not in_student_key("model.model_name_or_path") and not in_student_key("model.rounds")
    assert in_student_key("model.seed") and in_student_key("trainer.max_epochs") and in_student_key("trainer.callbacks")


def test_what_an_artifact_needs() -> None:
    """The moments' own words for what comes after them are the parameters of the subspace's key."""
    later = set(inspect.signature(subspace_key).parameters) - {
        "moments",
        "weights",
        "seed",
    }  # weights stand in subspace.task
    assert {name for name, found in SETTINGS.items() if found.chosen_later} == {f"subspace.{n}" for n in later}
    assert not is_needed("subspace.rank", "moments") and is_needed("subspace.rank", "corpus")
    assert is_needed("subspace.layers", "moments") and not is_needed("subspace.layers", "scores")
    assert is_needed("data.top_p", "corpus") and not is_needed("data.top_p", "moments")
    assert is_needed("evaluation.protocol", "scores") and not is_needed("evaluation.protocol", "corpus")
    for artifact in ("scores", "moments", "corpus"):
        assert is_needed("seed_everything", artifact) and is_needed("subspace.model_name_or_path", artifact)
        assert not is_needed("model.lora_r", artifact) and not is_needed("trainer.devices", artifact)


def test_a_report_compares_by_the_whole_name_of_an_option() -> None:
    """A task that is called like an option elsewhere (``seed``, ``when``) keeps its limit."""
    config = {
        "seed_everything": 1,
        "data": {"seed": 1, "data_dir": "a", "top_p": 0.9},
        "trainer": {"logger": {"init_args": {"name": "w"}}, "devices": 1},
        "evaluation": {"limit": {"seed": 5, "when": 6}, "when": "end", "tasks": ["seed"]},
        "data_revision": {"openai/gsm8k": "0a1b2c3"},
    }
    assert options(config) == {
        "data.top_p": 0.9,
        "trainer.devices": 1,
        "evaluation.limit.seed": 5,
        "evaluation.limit.when": 6,
    }
    assert not is_compared("subspace.seed")


def test_a_report_lists_no_default_of_a_stage_that_did_not_run() -> None:
    assert listed([])[0] == "subspace.model_name_or_path" and listed([])[-1] == "seed_everything"
    scored = listed(["evaluate"])
    assert scored[0] == "subspace.model_name_or_path" and "seed_everything" in scored
    assert not {"subspace.task", "data.method", "model.lora_r", "trainer.max_epochs"} & set(scored)
    assert "subspace.task" in listed(["generate"]) and "subspace.rank" not in listed(["generate"])
