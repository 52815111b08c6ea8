"""Every shipped configuration parses, and we know how many there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from spd_lightning.options import Options

CONFIGS = Path(__file__).parents[2] / "configs"
COMPLETE = sorted(p for p in CONFIGS.rglob("*.yaml") if p.parent.name not in ("sweeps", "trainer"))
OVERLAYS = sorted((CONFIGS / "trainer").glob("*.yaml"))


def test_all_were_found() -> None:
    assert len(COMPLETE) == 7 and len(OVERLAYS) == 4
    assert len(list(CONFIGS.rglob("*.yaml"))) == 14


@pytest.mark.parametrize("path", COMPLETE, ids=lambda p: p.relative_to(CONFIGS).as_posix())
def test_parses_for_every_stage_command_and_overlay(path: Path) -> None:
    parser = Options().parser
    for command in ("fit", "extract", "generate", "test"):
        for overlay in (None, *OVERLAYS):
            files = ["--config", str(path), *(["--config", str(overlay)] if overlay else [])]
            options = parser.parse_args([command, *files, "--subspace.model_name_or_path=smollm2-135m-instruct"])
            section = options[command]
            assert section.data.model_name_or_path == section.model.model_name_or_path == "smollm2-135m-instruct"
            assert section.data.task == section.subspace.task and section.model.seed == 42


@pytest.mark.parametrize("path", COMPLETE, ids=lambda p: p.relative_to(CONFIGS).as_posix())
def test_starts_with_what_it_is_and_the_command(path: Path) -> None:
    head = path.read_text(encoding="utf-8").splitlines()[:6]
    assert head[0].startswith("# ")
    assert any(f"--config configs/{path.relative_to(CONFIGS).as_posix()}" in line for line in head)
