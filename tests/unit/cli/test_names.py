"""Which names of options are refused, without a parser."""

from __future__ import annotations

import pytest

from spd_lightning.cli.names import FOLLOWS, check_names, file_options
from spd_lightning.cli.typed import Typed
from spd_lightning.errors import UserError

KNOWN = ["data.num_prompts", "trainer.callbacks", "evaluation.limit", "ckpt_path"]


def test_what_a_file_may_hold() -> None:
    options = ["--help", "--config", "--print_config", "--data", "--data.num_prompts", "--trainer.callbacks+"]
    assert file_options([*options, "--trainer.callbacks", "--trainer.logger.help"]) == KNOWN[:2]


@pytest.mark.parametrize(
    "name",
    ["data.num_prompts", "trainer.callbacks.patience", "evaluation.limit.gsm8k", "ckpt_path"],
)
def test_an_option_and_parts_of_one(name: str) -> None:
    check_names(Typed("fit", options={name: "1"}), KNOWN)


@pytest.mark.parametrize("name", ["data.num_promts", "trainer.callback", "data.num_prompts_", "epochs", "data"])
def test_what_is_none(name: str) -> None:
    with pytest.raises(UserError, match=f"--{name}"):
        check_names(Typed("fit", options={name: "1"}), KNOWN)


def test_what_follows_another_option() -> None:
    for name, source in FOLLOWS.items():
        with pytest.raises(UserError, match=f"--{name} follows --{source}"):
            check_names(Typed("fit", options={name: "1"}), [*KNOWN, name, source])
