"""Options of a run: dotted names, what differs, and which of them results depend on."""

from __future__ import annotations

from spd_lightning.artifacts.settings import differences, flatten, settings_of


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
