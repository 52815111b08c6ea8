"""Options of a test as a file: commands that run fewer stages refuse what they have no use for where it is typed.

And `PYTHONPATH`, for processes that a test starts: this tree, before what is there already.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

PYTHONPATH = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
FOLDER = Path(tempfile.mkdtemp(prefix="spd-settings-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


def in_file(options: Sequence[str]) -> list[str]:
    """``--config=FILE``, whose file holds options such as ``--data.num_prompts=3``."""
    nested: dict[str, Any] = {}
    for option in options:
        name, _, value = option.removeprefix("--").partition("=")
        *sections, last = name.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = yaml.safe_load(value)
    text = yaml.safe_dump(nested)
    file = FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.yaml"
    file.write_text(text)
    return [f"--config={file}"]
