"""``python -m spd_lightning``, and ``spd-lightning`` once it is installed."""

import sys

from spd_lightning.cli.start import main


def run() -> None:
    """Run what was typed and end with its status."""
    sys.exit(main())


if __name__ == "__main__":
    run()
