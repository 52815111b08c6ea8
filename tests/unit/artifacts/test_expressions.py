"""Which options take their value from the environment, by what expression, and what stands for it in files and keys."""

from __future__ import annotations

import time

import pytest

from spd_lightning.artifacts.expressions import digest, digests, expressions, marked, same, value_of, with_expressions
from spd_lightning.artifacts.settings import differences
from spd_lightning.errors import UserError

CONFIG = {
    "data_dir": "${oc.env:SPD_TEST_X}",
    "model": {"lora_r": "${oc.env:SPD_TEST_N}"},
    "list": [{"c": "x-${data_dir}", "d": 1}, "${oc.env:SPD_TEST_NOT,here}"],
    "e": "${f}",
    "f": "plain",
    "g": "${nothing}",
}


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPD_TEST_X", "secret")
    monkeypatch.setenv("SPD_TEST_N", "7")


def test_what_comes_from_the_environment_is_found_by_whatever_way() -> None:
    assert expressions(CONFIG) == {
        ("data_dir",): "${oc.env:SPD_TEST_X}",
        ("model", "lora_r"): "${oc.env:SPD_TEST_N}",
        ("list", 0, "c"): "x-${data_dir}",
        ("list", 1): "${oc.env:SPD_TEST_NOT,here}",
    }
    assert expressions({"a": "plain", "b": [1]}) == {}


def test_expressions_stand_in_files_and_a_hash_beside_them_in_keys() -> None:
    values = {**CONFIG, "data_dir": "secret", "list": [{"c": "x-secret", "d": 1}, "here"], "model": {"lora_r": 7}}
    found = expressions(CONFIG)
    assert with_expressions(values, found) == CONFIG
    hashes = digests(values, found)
    assert set(hashes) == {"data_dir", "model.lora_r", "list.0.c", "list.1"}
    key, other = marked(CONFIG, hashes), marked(CONFIG, digests({**values, "model": {"lora_r": 8}}, found))
    assert "secret" not in str((key, hashes)) and key["model"]["lora_r"].startswith("${oc.env:SPD_TEST_N}, sha256 ")
    assert key["g"] == "${nothing}" and key != other and not same(key, other)
    assert with_expressions({"template_date": "2026-01-01"}, {("template_date",): "${oc.env:X}"}) == {
        "template_date": "2026-01-01"  # what the run took it for
    }


def test_a_hash_takes_long_enough_that_nobody_tries_words() -> None:
    began = time.process_time()
    assert digest("hunter2") != digest("hunter3")
    assert time.process_time() - began > 0.02, "two of them"


def test_what_an_option_is_counts_and_not_how_it_was_written() -> None:
    def option(text: str, value: object) -> object:
        return marked({"tasks": {"of": [text]}}, digests({"tasks": {"of": [value]}}, {("tasks", "of", 0): text}))

    one, two, other = option("${oc.env:A}", 7), option("x-${oc.env:B}", 7), option("${oc.env:A}", 8)
    assert same(one, two) and not same(one, other)
    assert same(one, {"tasks": {"of": [7]}}) and not same(one, {"tasks": {"of": ["7"]}}) and not same(one, {})
    assert differences({"a": one}, {"a": {"tasks": {"of": [7]}}}) == []
    assert differences({"a": one}, {"a": other})[0].startswith("a.tasks.of: ['${oc.env:A}, sha256 ")


def test_an_option_of_a_saved_configuration_has_the_value_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    assert value_of(CONFIG, "model", "lora_r") == 7 and value_of(CONFIG, "f") == "plain"
    assert value_of(CONFIG, "model", "none") is None and value_of({}, "a", "b") is None
    monkeypatch.setenv("SPD_TEST_N", "[gsm8k, mmlu]")
    assert value_of(CONFIG, "model", "lora_r") == ["gsm8k", "mmlu"]
    monkeypatch.delenv("SPD_TEST_N")
    with pytest.raises(UserError, match=r"model\.lora_r of a run .*SPD_TEST_N"):
        value_of(CONFIG, "model", "lora_r")
