"""Bars on a terminal, plain lines elsewhere, nothing when quiet; a time left that can be relied on; no chatter."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spd_lightning import progress
from spd_lightning.pipeline.bars import StageBar
from spd_lightning.pipeline.chatter import LIGHTNING, LOGGERS, WANDB, Said, leave_out_chatter, leave_out_wandb
from spd_lightning.progress import Bar, TimeLeft, set_quiet, shown_time

RECORDED = Path(__file__).parents[1] / "data" / "stage_timings.json"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def stream(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard error: a terminal or a file."""
    found = Terminal() if getattr(request, "param", "file") == "terminal" else io.StringIO()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=found))  # pytest's own takes its place otherwise
    return found


def run(seconds: float, steps: int = 10) -> None:
    now = [0.0]
    bar = Bar("Training", steps, "steps", clock=lambda: now[0])
    for _ in range(steps):
        now[0] += seconds
        bar.set_postfix_str("loss 1.2, 117 tokens/s", refresh=False)
        bar.update()
        bar.refresh()
    bar.close()


def test_where_there_is_no_terminal_a_plain_line_stands_now_and_then(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    run(12.0)
    lines = stream.getvalue().splitlines()
    assert lines == [
        f"Training: {n}0% ({n}/10 steps), loss 1.2, 117 tokens/s, {left} left"
        for n, left in ((3, "01:24"), (6, "00:48"), (9, "00:12"))
    ]
    assert "\r" not in stream.getvalue() and capsys.readouterr().out == ""


def test_what_is_soon_done_has_no_line(stream: io.StringIO) -> None:
    run(2.0)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("stream", ["terminal"], indirect=True)
def test_on_a_terminal_a_bar_stands_on_standard_error(stream: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    run(12.0)
    last = stream.getvalue().split("\r")[-1]
    assert last.startswith("Training: 100%|") and "10/10 steps [" in last and "loss 1.2, 117 tokens/s]" in last
    assert "<01:00, loss" in stream.getvalue(), "the time left, halfway"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("stream", ["terminal", "file"], indirect=True)
def test_quiet_shows_nothing(stream: io.StringIO) -> None:
    set_quiet(True)
    try:
        run(12.0)
    finally:
        set_quiet(False)
    assert stream.getvalue() == ""


def test_a_bar_of_lightning_s_has_our_words(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for the whole training, counted in optimiser steps."""
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    metrics = {"train/loss": 1.25, "train/lr": 2e-4, "train/tokens_per_second": 117.2, "v_num": 3}
    trainer: Any = SimpleNamespace(
        estimated_stepping_batches=8, global_step=2, current_epoch=1, max_epochs=2, progress_bar_metrics=metrics
    )
    bar = StageBar()
    bar.on_train_start(trainer)
    trainer.global_step = 6
    bar.on_train_batch_end(trainer, None, None, None, 5)  # type: ignore[arg-type]
    bar.on_train_end()
    assert (
        stream.getvalue()
        .splitlines()[-1]
        .startswith("Training: 75% (6/8 steps), epoch 2/2, loss 1.25, lr 0.0002, 117 tokens/s, ")
    )


def test_time_left_of_an_even_pace_is_exact_and_unknown_before_it_began() -> None:
    left = TimeLeft(100.0)
    assert left.seconds(10, 101.0) is None and shown_time(None) == "?"
    for n in range(1, 6):
        left.note(n, 100.0 + 3 * n)
    assert left.seconds(10, 115.0) == pytest.approx(15) and left.seconds(10, 117.0) == pytest.approx(13)
    assert left.seconds(None, 115.0) is None and left.seconds(5, 120.0) == 0
    assert shown_time(3723) == "1:02:03"


def test_a_slow_start_is_forgotten() -> None:
    left = TimeLeft(0.0)
    left.note(1, 60.0)  # loads, compiles
    for n in range(2, 11):
        left.note(n, 60.0 + n - 1)
    assert left.seconds(20, 69.0) == pytest.approx(10, rel=0.01)


@pytest.mark.parametrize("stage", json.loads(RECORDED.read_text()))
def test_time_left_is_right_within_half_after_a_fifth(stage: str) -> None:
    """On recorded runs of a real model: what it says from 20% on is within a factor of 1.5 of what was left."""
    found = json.loads(RECORDED.read_text())[stage]
    total, seen = found["total"], found["seen"]
    left, end = TimeLeft(0.0), seen[-1][0]
    asked = 0
    for now, done in seen:
        left.note(done, now)
        if 0.2 * total <= done < total and end - now > 0.1 * end:  # a tenth of it is a moment
            said = left.seconds(total, now)
            assert said is not None and (end - now) / 1.5 <= said <= (end - now) * 1.5, (now, done, said, end - now)
            asked += 1
    assert asked >= 3


# -- chatter -----------------------------------------------------------------------------------------------------------


def test_libraries_are_filtered_by_their_words_and_never_by_level() -> None:
    said = Said()

    def lets_through(text: str, level: int = logging.INFO) -> bool:
        return bool(said.filter(logging.LogRecord("x", level, "f", 1, text, (), None)))

    for words in LIGHTNING:
        assert not lets_through(f"{words} x") and not lets_through(f"{words} x", logging.WARNING)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        assert lets_through("something else", level)
    set_quiet(True)
    try:
        assert not lets_through("[extract] 1.7 s") and lets_through("[generate] warning: 92% are cut")
        assert lets_through("something else", logging.WARNING)
    finally:
        set_quiet(False)


def test_filters_stand_once_however_often_they_are_asked_for() -> None:
    leave_out_chatter()
    leave_out_chatter()
    for name in LOGGERS:
        assert sum(isinstance(found, Said) for found in logging.getLogger(name).filters) == 1


def test_wandb_is_filtered_by_its_words(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    import wandb

    said: list[str] = []
    monkeypatch.setattr(wandb, "termlog", lambda text="", **settings: said.append(text))
    monkeypatch.setattr(wandb, "termwarn", lambda text="", **settings: said.append(text))
    monkeypatch.setattr(wandb, "init", lambda: print("of its service", flush=True))
    leave_out_wandb()
    leave_out_wandb()
    for words in WANDB:
        wandb.termlog(f"{words} x")
        wandb.termwarn(f"{words} x")
    wandb.termlog("View run at https://x")
    wandb.termwarn("The run was lost")
    assert said == ["View run at https://x", "The run was lost"]


def test_wandb_s_run_is_finished_with_the_command_s_status_before_its_service_ends() -> None:
    import subprocess
    import sys

    code = """
import atexit, wandb
from types import SimpleNamespace
from spd_lightning.pipeline.chatter import finish_wandb_at_exit, leave_out_wandb
def init():
    atexit.register(print, "the service ends")
    return SimpleNamespace(finish=lambda exit_code: print("finished with", exit_code))
wandb.init = init
leave_out_wandb()
wandb.init()
finish_wandb_at_exit(143)
finish_wandb_at_exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("finished with 143\nthe service ends\n", "")


def test_what_wandb_s_service_prints_stands_beside_the_output() -> None:
    """It is a process of its own: its output is ours at the moment it is started."""
    import subprocess
    import sys

    code = """
import subprocess, sys, wandb
from spd_lightning.pipeline.chatter import leave_out_wandb
wandb.init = lambda: subprocess.run([sys.executable, "-c", "print('where the run stands')"])
leave_out_wandb()
wandb.init()
print("the result")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "the result\n" and "where the run stands" in done.stderr
