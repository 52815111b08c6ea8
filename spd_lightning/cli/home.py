"""Where the home folder cannot be written, as in many containers, the libraries' caches go elsewhere.

transformers, datasets, evaluate, matplotlib and W&B each make folders in the home, some when they are imported, and
end in tracebacks of their own where they cannot.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import MutableMapping

CACHES = {  # variable to folder
    "XDG_CACHE_HOME": "",
    "HF_HOME": "huggingface",
    "MPLCONFIGDIR": "matplotlib",
    "WANDB_CONFIG_DIR": "wandb",
    "WANDB_CACHE_DIR": "wandb",
    "WANDB_DATA_DIR": "wandb",
}


def caches_elsewhere(environ: MutableMapping[str, str]) -> str | None:
    """Name a folder to every library that would write into a home that cannot be written; what is set already stays.

    The folder is the user's own in the temporary one, the same every time where it can be, so that a model that was
    dequantised once is found again.

    Args:
        environ: Environment of this process and of those that it starts.

    Returns:
        What there is to say, None where the home can be written or every folder is named already.
    """
    home, unnamed = os.path.expanduser("~"), CACHES.keys() - environ.keys()
    if not unnamed or _is_writable(os.path.join(home, ".cache")):
        return None
    folder = os.path.join(tempfile.gettempdir(), f"spd_lightning-{os.getuid()}")
    if not (_is_writable(folder) and os.stat(folder).st_uid == os.getuid() and not os.path.islink(folder)):
        folder = tempfile.mkdtemp(prefix="spd_lightning-")
    for name in unnamed:
        environ[name] = os.path.join(folder, CACHES[name])
        os.makedirs(environ[name], exist_ok=True)
    return f"The home folder {home} cannot be written: caches stand in {folder}."


def use_a_home() -> None:
    """`caches_elsewhere` for this process, said on standard error by the first of several."""
    said = caches_elsewhere(os.environ)
    if said is not None and "LOCAL_RANK" not in os.environ:
        print(said, file=sys.stderr, flush=True)


def _is_writable(folder: str) -> bool:
    """Whether files can be made there, by making one: permissions say little of root and read-only disks."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
