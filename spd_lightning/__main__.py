"""``python -m spd_lightning``."""

import sys

from spd_lightning.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
