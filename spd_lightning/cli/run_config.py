"""The configuration of a run folder, as the commands on its result take it."""

from __future__ import annotations

from typing import Any

from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.errors import UserError


def run_config(run: RunFolder) -> dict[str, Any]:
    """The configuration of a run folder; a hub model's name has its commit behind it (``id@commit``).

    Raises:
        UserError: If the folder is no run.
    """
    from spd_lightning.model.chat_template import fix_template_date
    from spd_lightning.model.checkpoint_files import split_revision
    from spd_lightning.model.source import hub_id

    config = run.configuration()
    if not config:
        raise UserError(f"{run.path} is not a run folder: it has no config.yaml. Give a folder that fit wrote.")
    fix_template_date(config.get("template_date"))
    name, revision = config["subspace"]["model_name_or_path"], config.get("model_revision")
    if revision and (found := hub_id(name)) is not None:
        config["subspace"]["model_name_or_path"] = f"{split_revision(found)[0]}@{revision}"
    return config
