"""How a typed value is read: as YAML, but text that YAML takes for nothing, a comment or an anchor, is that text."""

from __future__ import annotations

from typing import Any

import jsonargparse
import yaml

MODE = "omegaconf+"
NOTHING = ("", "~", "null")


def read_as_typed() -> None:
    """Have every parser of this process read ``#x`` and ``&x`` as text: a folder may be called so, null is another."""
    jsonargparse.ArgumentParser(parser_mode=MODE).parse_string("{}")  # makes the loader
    loader = jsonargparse.get_loader(MODE)
    if getattr(loader, "reads_as_typed", False):
        return

    def read(text: str) -> Any:
        value = loader(text)
        comment = value is None and "\n" not in text and text.strip().lower() not in NOTHING
        return text if comment else value

    read.reads_as_typed = True  # type: ignore[attr-defined]
    jsonargparse.set_loader(MODE, read, exceptions=(yaml.YAMLError,))
