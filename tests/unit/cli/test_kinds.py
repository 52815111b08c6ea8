"""Simple values are told at once, and exactly as the whole parser tells them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import pytest
from jsonargparse import ArgumentError

from spd_lightning import shipped
from spd_lightning.cli import program, start
from spd_lightning.cli.config_file import ConfigFile, config_path
from spd_lightning.cli.kinds import _hint, check_values, kind_of
from spd_lightning.cli.option_table import load
from spd_lightning.cli.parser import make_parser, stage_parsers
from spd_lightning.cli.typed import Typed
from spd_lightning.errors import UserError
from tests.unit.cli.test_start import WHOLE, started

TRIED = ["3", "-1", "1.5", "1e3", "1e-5", "2.0", "0x10", "1_000", "true", "True", "yes", "null", "None", "kv", "all"]
TRIED += ["[1]", "{a:1}", "nan", "inf", "#x", "&x", "'4'", "auto", "", "x y", "{a: 1}"]


def test_a_kind_stands_in_the_table_and_comes_back() -> None:
    for hint in (int, float | None, bool, Literal["kv", "k"], Literal["auto"] | None, int | bool):
        kind = kind_of(hint)
        assert kind is not None and kind_of(_hint(kind)) == kind
    for other in (str, int | str, list[int], Literal[64, "64"], dict[str, float], None | str):
        assert kind_of(other) is None


def test_what_is_refused_at_once_is_what_the_whole_parser_refuses() -> None:
    """One option of every kind there is, with values of every form: the same are taken."""
    table = load()
    assert table is not None
    live: Any = stage_parsers(make_parser())["fit"]
    of_a_kind = {re.sub("=[^|]+", "=", kind): name for name, kind in table.kinds["fit"].items()}
    assert {"int", "float", "bool", "int|null", "float|null", "=|=|=", "=|null"} <= of_a_kind.keys()
    refused = 0
    for name in of_a_kind.values():
        for text in TRIED:
            try:
                live.parse_args([f"--{name}={text}"])
                taken = True
            except ArgumentError:
                taken = False
            try:
                check_values(Typed("fit", options={name: text}), [], table.kinds["fit"], table.commands)
                assert taken, (name, text)
            except UserError:
                assert not taken, (name, text)
                refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    "given",
    [
        *("data.keep=foo", "trainer.max_steps=x", "data.num_prompts=1e3", "subspace.center=maybe", "model.lora_r=[1]"),
        *("subspace.rank=abc", "subspace.rank=1.5", "subspace.layers=0,1"),
    ],
)
@pytest.mark.parametrize("in_file", [False, True], ids=["typed", "in a file"])
def test_the_words_are_the_whole_parsers(
    given: str, in_file: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["fit", f"--{given}"]
    if in_file:
        name, _, value = given.partition("=")
        section, option = name.split(".")
        Path("a.yaml").write_text(f"{section}:\n  # a line before it\n  {option}: {value}\n")
        args = ["fit", "--config", "a.yaml"]
    assert program.main(args) == 2
    expected = capsys.readouterr().err
    assert start.main(args) == 2
    assert capsys.readouterr().err == expected and ("a.yaml, line 3: " in expected) == in_file


def test_what_a_typed_value_or_a_later_file_overrides_is_not_looked_at(tmp_path: Path) -> None:
    table = load()
    assert table is not None
    files = []
    for name, value in (("a", "many"), ("b", "3")):
        (tmp_path / f"{name}.yaml").write_text(f"data:\n  num_prompts: {value}\n")
        files.append(ConfigFile(str(tmp_path / f"{name}.yaml"), {"data.num_prompts": 2}))
    check_values(Typed("fit"), files, table.kinds["fit"], table.commands)
    check_values(Typed("fit", options={"data.num_prompts": "4"}), files[:1], table.kinds["fit"], table.commands)
    with pytest.raises(UserError, match=r"line 2: data\.num_prompts='many' is not possible"):
        check_values(Typed("fit"), files[::-1], table.kinds["fit"], table.commands)


def test_what_a_value_stands_for_is_left_to_the_whole_parser() -> None:
    check_values(
        Typed("fit", options={"data.num_prompts": "${subspace.num_examples}"}), [], {"data.num_prompts": "int"}, []
    )


@pytest.mark.parametrize(
    "given", ["rank=half", "rank=8", "rank=energy:0.9", "layers=all", "layers=[0, -1]", "rank=${model.lora_r}"]
)
def test_a_word_that_its_rule_has_is_taken(given: str) -> None:
    name, value = given.split("=")
    check_values(Typed("fit", options={f"subspace.{name}": value}), [], {}, [])


@pytest.mark.parametrize("name", shipped.names())
def test_every_shipped_configuration_passes(name: str) -> None:
    table = load()
    assert table is not None
    check_values(Typed("fit"), [ConfigFile(str(config_path(name)), {})], table.kinds["fit"], table.commands)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--data.keep", "foo", "Unknown data.keep 'foo'"), ("--subspace.rank", "abc", "rank='abc' is not known.")],
)
def test_a_second_for_a_wrong_value(option: str, value: str, said: str) -> None:
    done, seconds = started("fit", option, value)
    status, *modules = done.stderr.splitlines()[-1].split()
    assert said in done.stderr and status == "2" and seconds < 1
    assert not {name.split(".")[0] for name in modules} & WHOLE
