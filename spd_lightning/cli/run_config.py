"""The configuration of a run folder, as the commands on its result take it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.run_folder import AGAIN, RunFolder
from spd_lightning.artifacts.settings import SECTIONS
from spd_lightning.errors import UserError


class Saved(dict[str, Any]):
    """Options of a ``config.yaml``: one that is asked for and is not there is told, since every run writes all.

    Args:
        found: The options.
        file: The file.
        above: Where they stand in it: ``data.``.
    """

    def __init__(self, found: Mapping[str, Any], file: Path, above: str = "") -> None:
        self.file, self.above = file, above
        for name, value in found.items():
            if isinstance(value, Mapping):
                self[name] = Saved(value, file, f"{above}{name}.")
            elif above or name not in SECTIONS:
                self[name] = value

    def __missing__(self, name: str) -> Any:
        """Nothing stands for an option.

        Raises:
            UserError: Always.
        """
        raise UserError(f"{self.file} says nothing of {self.above}{name}, so it is not as a run wrote it. {AGAIN}")


def saved_values(run: RunFolder) -> dict[str, Any]:
    """A run's ``config.yaml`` with the values that its expressions have now, read by the parser as they were then.

    Raises:
        UserError: If a variable is not set, or its value cannot be taken; later, for an option that is not there.
    """
    config = run.configuration()
    if "${" not in str(config):
        return Saved(config, run.config_file)
    from jsonargparse import ArgumentError, capture_parser
    from omegaconf.errors import OmegaConfBaseException

    from spd_lightning.cli.messages import explain, unresolved
    from spd_lightning.cli.stage_parser import StageLine
    from spd_lightning.cli.typed import Typed

    typed = Typed("fit", configs=[str(run.config_file)])
    parser: Any = capture_parser(StageLine, ["fit"])
    try:
        options = parser.parse_args(typed.args())
    except OmegaConfBaseException as error:
        raise UserError(f"{run.config_file}: {unresolved(error, typed, [])}") from error
    except ArgumentError as error:
        raise UserError(f"{run.config_file}: {explain(error, [], [], typed)}") from error
    values: dict[str, Any] = parser.commands.choices["fit"].values(options.fit)
    return Saved({name: values[name] for name in config if name in values}, run.config_file)


def run_config(run: RunFolder) -> dict[str, Any]:
    """The configuration of a run folder; a hub model's name has its commit behind it (``id@commit``).

    Raises:
        UserError: If the folder is no run, or an environment variable that its options name is not set.
    """
    from spd_lightning.model.chat_template import fix_template_date
    from spd_lightning.model.checkpoint_files import split_revision
    from spd_lightning.model.source import hub_id

    config = saved_values(run)
    if not config:
        raise UserError(f"{run.path} is not a run folder: it has no config.yaml. Give a folder that fit wrote.")
    fix_template_date(config.get("template_date"))
    name, revision = config["subspace"]["model_name_or_path"], config.get("model_revision")
    if revision and (found := hub_id(name)) is not None:
        config["subspace"]["model_name_or_path"] = f"{split_revision(found)[0]}@{revision}"
    return config
