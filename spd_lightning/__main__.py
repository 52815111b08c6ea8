"""``python -m spd_lightning``, and ``spd-lightning`` once it is installed."""

import sys


def run() -> None:
    """Run what was typed and end with its status; Ctrl-C before it began ends it quietly too."""
    try:
        from spd_lightning.cli.start import main

        status = main()
    except KeyboardInterrupt:
        print("\nInterrupted. Give the same command again.", file=sys.stderr)
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    run()
