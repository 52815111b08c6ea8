"""Many completions at once: programs are run, all else is read, in order."""

from __future__ import annotations

import pytest

from spd_lightning.errors import UserError
from spd_lightning.scoring import judging
from spd_lightning.scoring.judging import check_consent, correct_completions, judge_all
from spd_lightning.tasks import Example
from spd_lightning.tasks.coding import program_meta

META = program_meta("", "\nassert f() == 7\n", False)
PROGRAM = Example("p", "Write f.", " def f(): return 7", expected="assert f() == 7", meta=META)


def test_programs_are_run_and_told_in_order() -> None:
    codes = ["def f(): return 7", "def f(): return 8", "def f(:"]
    verdicts = judge_all("program", [PROGRAM] * 3, codes, timeout_s=10.0, workers=1)
    assert [(v.correct, v.reason) for v in verdicts] == [(True, "passed"), (False, "assertion"), (False, "syntax")]
    assert [v.scores["one_process"] for v in verdicts] == [1.0, 0.0, 0.0]
    assert verdicts[0].answer == codes[0]
    (alone,) = judge_all("program", [PROGRAM], codes[:1], timeout_s=10.0, workers=1, one_process=False)
    assert alone.correct and "one_process" not in alone.scores


def test_letters_may_go_as_far_as_any_question_does() -> None:
    examples = [Example("a", "Q", " A", expected="A"), Example("e", "Q", " E", expected="E")]
    records = [{"id": "e", "completion": "(E)"}, {"id": "a", "completion": "(E)"}]
    assert correct_completions(examples, "letter", records) == [True, False]


def test_programs_are_not_run_without_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "may_execute", lambda allow: bool(allow))
    check_consent("number", None)
    check_consent("program", True)
    with pytest.raises(UserError, match=r"allow_code_execution=None.*Set --evaluation\.allow_code_execution"):
        correct_completions([PROGRAM], "program", [{"id": "p", "completion": "x"}])
