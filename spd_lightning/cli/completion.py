"""``completion``: what a shell needs to complete commands, options and the values that can be listed."""

from __future__ import annotations

import importlib.util
import re
from typing import Any, Literal

from spd_lightning.errors import UserError

SCRIPT = "spd-lightning"  # of the installed command: a shell completes no `python -m`


def completion(shell: Literal["bash", "zsh", "tcsh"]) -> None:
    """Print a script that lets a shell complete `spd-lightning`: its commands, options and listed values.

    bash: spd-lightning completion bash > ~/.local/share/bash-completion/completions/spd-lightning
    zsh: spd-lightning completion zsh > a folder of $fpath, as _spd-lightning

    Args:
        shell: Which one; write it anew after an update.

    Raises:
        UserError: If what makes it is not installed; the program itself, which has the parser, then prints it.
    """
    if importlib.util.find_spec("shtab") is None:
        raise UserError("completion needs the package shtab, which is not installed. Type `pip install shtab`.")


def script(parser: Any, shell: str) -> str:
    """The script for a shell.

    Args:
        parser: Of the whole program; it can be used for nothing else afterwards.
        shell: bash, zsh or tcsh.
    """
    parser.prog = SCRIPT
    return without_links(parser.get_completion_script(f"shtab-{shell}"))


def without_links(script: str) -> str:
    """A script without what the parser says of options that follow others, which nobody can type."""
    return re.sub(r" ?'[\w.]+ --> [\w.]+'", "", script)
