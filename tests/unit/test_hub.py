"""Where nobody answers, the hub is looked for once."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from spd_lightning import hub

SCRIPT = """
import socket, time
asked = []
def nobody(*address, **_):
    asked.append(address[0])
    raise OSError("no route")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = nobody
from spd_lightning.errors import UserError
from spd_lightning.model.source import resolve_source
from spd_lightning.tasks import load_task
start = time.monotonic()
for look in (lambda: resolve_source("someone/model"), lambda: load_task("gsm8k").examples("test"),
             lambda: load_task("svamp").examples("test"), lambda: resolve_source("someone/other")):
    try:
        look()
    except UserError as error:
        assert "neither downloaded nor reachable" in str(error), error
    else:
        raise AssertionError("it answered")
print(len(asked), time.monotonic() - start)
"""


def test_models_and_data_sets_cost_one_look_together() -> None:
    """`datasets` alone would wait 24 seconds for each data set."""
    left_out = ("HF_HUB_OFFLINE", "SPD_DATA_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Retrying" not in done.stderr
    assert int(done.stdout.split()[0]) <= 2, "one address, looked up once or as two kinds of it"


@pytest.mark.parametrize(("response", "offline"), [(None, True), (SimpleNamespace(status_code=404), False)])
def test_a_refusal_is_an_answer(response: object, offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    error = RuntimeError("no")
    error.response = response  # type: ignore[attr-defined]

    def question() -> None:
        raise error

    with pytest.raises(RuntimeError):
        hub.ask(question)
    assert constants.HF_HUB_OFFLINE is offline and os.environ["HF_HUB_OFFLINE"] == str(int(offline))


def test_an_answer_is_handed_on() -> None:
    assert hub.ask(lambda: 3) == 3


@pytest.mark.parametrize("before", [True, False])
def test_meanwhile_nothing_is_asked(before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", before)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", before)
    monkeypatch.setenv("HF_HUB_OFFLINE", str(int(before)))
    with hub.unasked():
        assert constants.HF_HUB_OFFLINE and datasets.config.HF_HUB_OFFLINE and os.environ["HF_HUB_OFFLINE"] == "1"
    assert constants.HF_HUB_OFFLINE is datasets.config.HF_HUB_OFFLINE is before
    assert os.environ["HF_HUB_OFFLINE"] == str(int(before))
