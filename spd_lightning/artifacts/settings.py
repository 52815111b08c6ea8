"""What is written to disk: fingerprints, the artifact store that runs share, run folders, atomic files, locks.

An artifact is a folder ``<stage>-<fingerprint>/`` in the store. Its fingerprint covers exactly what it depends on, so
another setting is another folder: nothing stale is ever reused, and nothing is overwritten.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options as dotted ones: ``{"subspace": {"rank": 8}}`` becomes ``{"subspace.rank": 8}``."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What differs between two keys or configurations, an entry each: ``rank: 8 there, 16 here``; hashes shortened."""

    def short(value: Any) -> str:
        return repr(value[:12] + "..." if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32,}", value) else value)

    old, new = (flatten(json.loads(json.dumps(key))) for key in (there, here))
    return [
        f"{name}: {short(old.get(name))} there, {short(new.get(name))} here"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


# Options that say where and on what a run is computed, not what is computed; a revision's content counts.
PLACE_OPTIONS = {
    "config", "ckpt_path", "model_revision", "data_revision", "estimate", "run_dir", "artifact_dir", "data_dir",
    "data.corpus_dir",
    "evaluation.allow_code_execution", "subspace.device_map", "data.device_map", "evaluation.device_map",
    "trainer.accelerator", "trainer.strategy", "trainer.devices", "trainer.num_nodes", "trainer.logger",
    "trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.default_root_dir", "trainer.profiler",
    "trainer.log_every_n_steps", "trainer.plugins", "trainer.detect_anomaly",
}  # fmt: skip


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a configuration that its results depend on, dotted; a callback may stop early, so they count."""
    settings = {k: v for k, v in flatten(config).items() if k not in PLACE_OPTIONS}
    return {
        k: v
        for k, v in settings.items()
        if not k.startswith("trainer.logger") and (k, v) != ("trainer.callbacks", None)
    }
