"""``python -m spd_lightning``, and ``spd-lightning`` once it is installed."""

import sys


def run() -> None:
    """Run what was typed and end with its status; Ctrl-C before it began ends it quietly too."""
    try:
        from spd_lightning.cli.start import leave, main

        leave(main())
    except KeyboardInterrupt:
        print("\nInterrupted. Give the same command again.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run()
