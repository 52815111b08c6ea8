"""Constructors refuse what the command line refuses, in the same words."""

from __future__ import annotations

from typing import Any

import pytest

from spd_lightning import BenchmarkCallback, SelfGenerationDataModule, SPDFineTuningModule, SubspaceExtractionModule
from spd_lightning.cli.program import main
from spd_lightning.errors import UserError
from spd_lightning.generation.questions import Questions
from spd_lightning.generation.recipe import Recipe
from spd_lightning.options import check_options

CLASSES: dict[str, Any] = {
    "subspace": SubspaceExtractionModule,
    "data": SelfGenerationDataModule,
    "model": SPDFineTuningModule,
    "evaluation": BenchmarkCallback,
}
WRONG = [
    ("data", "method", "sdp", "Unknown data.method 'sdp'. Did you mean 'ssd'?"),
    ("subspace", "loss", "correct", "Unknown subspace.loss 'correct'. Did you mean 'correctness'?"),
    ("subspace", "span_rule", "inside", "Unknown subspace.span_rule 'inside'."),
    ("data", "engine", "vlm", "Unknown data.engine 'vlm'. Did you mean 'vllm'?"),
    ("data", "prompt_format", "chatml", "Unknown data.prompt_format 'chatml'. Did you mean 'chat'?"),
    ("subspace", "sides", "vk", "Unknown subspace.sides 'vk'."),
    ("model", "loss_on", "prompt", "Unknown model.loss_on 'prompt'."),
    ("evaluation", "protocol", "papers", "Unknown evaluation.protocol 'papers'. Did you mean 'paper'?"),
    ("data", "num_prompts", "many", "data.num_prompts='many' is not possible. Set --data.num_prompts to a whole"),
    ("data", "temperature", "hot", "data.temperature='hot' is not possible. Set --data.temperature to a number."),
    ("model", "learning_rate", float("nan"), "model.learning_rate=nan is not possible. Set --model.learning_rate to a"),
    ("data", "temperature", float("inf"), "data.temperature=inf is not possible. Set --data.temperature to a number."),
    ("model", "weight_decay", -0.1, "weight_decay=-0.1 is too small. Set --model.weight_decay to 0 or more."),
    ("model", "packing", 3, "model.packing=3 is not possible. Set --model.packing to true or false."),
]  # fmt: skip


@pytest.mark.parametrize(("section", "name", "value", "said"), WRONG)
def test_a_constructor_refuses(section: str, name: str, value: Any, said: str) -> None:
    with pytest.raises(UserError) as error:
        CLASSES[section](**{name: value})
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(("section", "name", "value", "said"), [row for row in WRONG if row[0] != "model"][:3])
def test_the_command_line_says_the_same(
    section: str, name: str, value: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", f"--{section}.{name}={value}"]) == 2
    assert said in capsys.readouterr().err


def test_defaults_and_what_python_people_hand_over_pass(tmp_path: Any) -> None:
    for made in CLASSES.values():
        made()
    SelfGenerationDataModule(subspace=tmp_path / "a.safetensors", temperature=1, stop=("x",))
    SubspaceExtractionModule(layers=[0, -1], rank="energy:0.9")
    BenchmarkCallback(tasks=("gsm8k",), limit={"gsm8k": 3})


def test_the_plain_core_refuses_too() -> None:
    with pytest.raises(UserError, match=r"Unknown data\.method 'sdp'"):
        Recipe(Questions("m", "arithmetic"), method="sdp")  # type: ignore[arg-type]


def test_names_that_are_no_options_are_left_alone() -> None:
    check_options(SubspaceExtractionModule, {"self": 3, "other": object()}, "subspace")
