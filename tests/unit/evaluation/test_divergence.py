"""Student against base on texts, against a plain loop over whole texts in float64."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from spd_lightning.evaluation.continuations import work_of_tokens
from spd_lightning.evaluation.divergence import summary, text_divergences
from spd_lightning.model.adapter_beside import LinearBeside, base_alone, put_beside
from tests.conftest import tiny_model

TEXTS = [
    (
        f"t{i}",
        tuple(range(40, 60)) + tuple(range(65, 68 + 3 * i)),
        tuple((97 + 7 * i + 3 * j) % 256 for j in range(1 + 4 * i)),
    )
    for i in range(5)
]


def student_of(model, folder: Path, scale: float, seed: int = 1):  # type: ignore[no-untyped-def]
    """A student with a random adapter beside the weights; ``scale`` 0 is an adapter that adds nothing."""
    torch.manual_seed(seed)
    wrapped = get_peft_model(
        copy.deepcopy(model), LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=scale) if scale else weight.zero_()
    wrapped.save_pretrained(str(folder))
    return put_beside(copy.deepcopy(model), folder)


def by_hand(student, base, prompt, completion):  # type: ignore[no-untyped-def]
    ids = torch.tensor([[*prompt, *completion]])
    with torch.no_grad():
        ours, theirs = (m(ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1) for m in (student, base))
    kl = (ours.exp() * (ours - theirs)).sum().item()
    tokens = torch.tensor(completion)[:, None]
    same = int((ours.argmax(-1) == theirs.argmax(-1)).sum())
    return kl, -theirs.gather(1, tokens).sum().item(), -ours.gather(1, tokens).sum().item(), same


@pytest.mark.parametrize("group", ["", "all"], ids=["apart", "shared start"])
def test_divergence_and_losses_equal_the_plain_loop(tmp_path: Path, group: str) -> None:
    base = tiny_model()
    student = student_of(base, tmp_path / "a", 0.3)
    work = [work_of_tokens(id, prompt, completion, group) for id, prompt, completion in TEXTS]
    for other in (None, base):  # the student's own base with the adapter put aside, or a model of its own
        found = text_divergences(student, work, other)
        for text, (id, prompt, completion) in zip(found, TEXTS, strict=True):
            kl, base_nll, student_nll, same = by_hand(student, base, prompt, completion)
            assert (text.id, text.tokens, text.same) == (id, len(completion), same)
            assert text.kl == pytest.approx(kl, rel=1e-4, abs=1e-6) and kl > 1e-3
            assert text.base_nll == pytest.approx(base_nll, rel=1e-5)
            assert text.student_nll == pytest.approx(student_nll, rel=1e-5)
    assert any(isinstance(m, LinearBeside) and m.inner.any() for m in student.modules()), "the adapter must be back"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_student_that_did_not_move_has_a_divergence_of_exactly_zero(tmp_path: Path, dtype: torch.dtype) -> None:
    student = student_of(tiny_model().to(dtype), tmp_path / "a", 0.0)
    found = summary(text_divergences(student, [work_of_tokens(*text) for text in TEXTS]))
    assert (found["kl"], found["loss_delta"], found["same_token"]) == (0.0, 0.0, 1.0)
    assert found["texts"] == 5 and found["tokens"] == sum(len(text[2]) for text in TEXTS)


def test_the_divergence_is_that_of_the_student_from_the_base(tmp_path: Path) -> None:
    """KL is no distance: with the two exchanged it is another number."""
    base = tiny_model()
    student = student_of(base, tmp_path / "a", 0.5)
    work = [work_of_tokens(*TEXTS[4])]
    there, back = text_divergences(student, work)[0].kl, text_divergences(base, work, student)[0].kl
    assert there == pytest.approx(by_hand(student, base, *TEXTS[4][1:])[0], rel=1e-4)
    assert abs(there - back) > 1e-3 * there


def test_the_summary_weighs_texts_by_their_tokens() -> None:
    from spd_lightning.evaluation.divergence import TextDivergence

    texts = [
        TextDivergence(id="a", tokens=1, kl=1.0, base_nll=2.0, student_nll=1.0, same=1),
        TextDivergence(id="b", tokens=3, kl=1.0, base_nll=3.0, student_nll=3.0, same=0),
    ]
    found = summary(texts)
    assert (found["kl"], found["base_loss"], found["student_loss"]) == (0.5, 1.25, 1.0)
    assert found["loss_delta"] == -0.25 and found["same_token"] == 0.25
    assert found["kl_ci95"][0] == 0.0, "a divergence is never below 0"


def test_adapters_are_back_where_the_work_fails(tmp_path: Path) -> None:
    student = student_of(tiny_model(), tmp_path / "a", 0.3)
    before = [m.inner for m in student.modules() if isinstance(m, LinearBeside)]
    with pytest.raises(RuntimeError, match="stop"), base_alone(student):
        assert not any(m.inner.any() for m in student.modules() if isinstance(m, LinearBeside))
        raise RuntimeError("stop")
    after = [m.inner for m in student.modules() if isinstance(m, LinearBeside)]
    assert all(a is b for a, b in zip(before, after, strict=True))
