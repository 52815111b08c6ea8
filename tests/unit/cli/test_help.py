"""``--help``: headings and usage lines of our own, and no markup."""

from __future__ import annotations

import re

import pytest

from spd_lightning.cli.commands import command_parser
from spd_lightning.cli.help import plain
from spd_lightning.cli.parser import make_parser
from spd_lightning.cli.program import main
from spd_lightning.cli.typed import PROGRAM


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a :class:`~lightning.pytorch.Trainer` or ``None``.", "a Trainer or None."),
        ("see :ref:`the guide <x:y>`. Default: ``True``.", "see the guide."),
        ("a :class:`datetime.timedelta`", "a datetime.timedelta"),
    ],
)
def test_markup_is_taken_out(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize("section", ["subspace", "data", "model", "evaluation", "trainer"])
def test_help_of_a_section_is_that_section_in_plain_words(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--help", section])
    shown = capsys.readouterr().out
    assert shown.startswith(f"{section}: ") and f"--{section}." in shown
    assert not [
        other for other in ("subspace", "data", "model", "trainer") if other != section and f"\n  --{other}." in shown
    ]
    assert not [debris for debris in ("``", ":class:", ":ref:", "paramref", "SPDCLI", "stub") if debris in shown]


def test_usage_lines_name_their_own_command() -> None:
    parser = make_parser()
    for name, sub in parser._subcommands_action._name_parser_map.items():  # type: ignore[attr-defined]
        usage = sub.format_help().splitlines()[0]
        assert f"{usage} ".startswith(f"usage: {PROGRAM} {name} ") and "[options]" not in usage
        assert "stage 1 alone" in sub.description if name == "extract" else sub.description
    shown = parser._subcommands_action._name_parser_map["test"].format_help()  # type: ignore[attr-defined]
    assert f"\n       {PROGRAM} test RUN_DIR [--tasks LIST] " in shown


def test_what_may_be_left_out_is_not_called_required() -> None:
    assert (
        "(required)" not in re.sub(r"\s+", " ", command_parser("runs").format_help()).partition("run_dir show")[2][:90]
    )
