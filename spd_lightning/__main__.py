"""``python -m spd_lightning``."""

import sys

from spd_lightning.cli import main

if __name__ == "__main__":
    sys.exit(main())
