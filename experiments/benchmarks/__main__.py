"""``python -m experiments.benchmarks NAME [options]``: run ``experiments/benchmarks/NAME.py``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main(argv: list[str]) -> int:
    """Import the benchmark of that name and call its ``main`` with the rest of the arguments."""
    own = {"__init__", "__main__", "reference", "shapes"}
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in own)
    if not argv or argv[0] not in names:
        print(f"usage: python -m experiments.benchmarks {{{','.join(names)}}} [options]", file=sys.stderr)
        return 2
    return importlib.import_module(f"experiments.benchmarks.{argv[0]}").main(argv[1:]) or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
