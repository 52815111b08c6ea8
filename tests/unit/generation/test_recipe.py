"""A recipe by itself: no option is forgotten in its key, and what a run knows is handed in as a new recipe."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from spd_lightning.errors import UserError
from spd_lightning.finetuning.datamodule import SelfGenerationDataModule
from spd_lightning.generation.questions import Questions
from spd_lightning.generation.recipe import Recipe
from spd_lightning.generation.requests import form_batches
from spd_lightning.generation.sampling import SamplingParams, choose_tokens
from spd_lightning.tasks import load_task

# Named otherwise in the key, or there by what they lead to: the prompts, the tokens, the sampling.
ELSEWHERE = {"questions", "model_name_or_path", "tasks", "task_file", "data_dir", "num_prompts", "method", "say"}


def small(model: str, tasks: Any = "arithmetic", num_prompts: int = 2, **options: Any) -> Recipe:
    questions = Questions(model, tasks, num_prompts=num_prompts, max_prompt_length=1024, **options)
    return Recipe(questions, method="ssd", dtype="float32", batch_size=2)


def test_every_option_is_in_the_key_or_there_by_what_it_leads_to(tiny_model_dir: str) -> None:
    fields = {field.name for kind in (Questions, Recipe) for field in dataclasses.fields(kind)}
    key = small(tiny_model_dir).key()
    assert fields >= ELSEWHERE and fields - ELSEWHERE <= key.keys()
    assert key.keys() - fields == {"model", "task", "task_version", "prompts", "prompt_tokens"}


def test_what_cuts_nothing_of_a_greedy_choice_parts_no_corpora(tiny_model_dir: str) -> None:
    greedy = dataclasses.replace(small(tiny_model_dir), temperature=0.0)
    cuts: list[dict[str, Any]] = [{"top_p": 0.5}, {"top_k": 3}, {"min_p": 0.2}, {"method": "psr"}]
    assert all(dataclasses.replace(greedy, **cut).key() == greedy.key() for cut in cuts)
    drawn = dataclasses.replace(greedy, temperature=0.7)
    keys = [dataclasses.replace(drawn, **cut).key() for cut in ({}, *cuts)]
    assert all(a != b for i, a in enumerate(keys) for b in keys[:i])
    with torch.inference_mode():  # and so it is: the same tokens
        logits = torch.randn(50, 200, generator=torch.Generator().manual_seed(1))
        keys_of_rows = torch.zeros(50, 2, dtype=torch.int32)
        tokens = [
            choose_tokens(logits, SamplingParams(temperature=0.0, **cut), keys_of_rows)[0].tolist()
            for cut in ({}, *cuts[:3])
        ]
    assert all(found == logits.argmax(-1).tolist() for found in tokens)


def test_several_completions_of_a_greedy_choice_are_refused_in_python_too(tiny_model_dir: str) -> None:
    several = small(tiny_model_dir, num_generations=2)
    makes: list[Any] = [
        lambda: dataclasses.replace(several, temperature=0.0),
        lambda: SelfGenerationDataModule(tiny_model_dir, num_generations=2, temperature=0),
    ]
    for make in makes:
        with pytest.raises(UserError, match="num_generations=2 at temperature 0 is one completion 2 times"):
            make()


def test_a_settled_recipe_keeps_the_questions_that_were_read(tiny_model_dir: str) -> None:
    recipe = small(tiny_model_dir)
    read = recipe.questions.requests
    settled = dataclasses.replace(recipe, dtype="auto").on(torch.device("cpu")).under(Path("a.safetensors"))
    assert settled.questions.requests is read and settled.subspace == "a.safetensors"
    assert settled.dtype in ("float32", "bfloat16") and settled.on("cpu") == settled


def test_one_task_has_the_key_that_it_always_had_however_it_is_written(tiny_model_dir: str) -> None:
    key = small(tiny_model_dir).key()
    assert key["task"] == "arithmetic" and isinstance(key["task_version"], int)
    assert isinstance(key["prompts"], str) and isinstance(key["prompt_tokens"], str)
    assert key["max_new_tokens"] == load_task("arithmetic").max_new_tokens
    assert key == small(tiny_model_dir, ["arithmetic"]).key() == small(tiny_model_dir, {"arithmetic": 3}).key()
    assert [r.id for r in small(tiny_model_dir).questions.requests] == ["train/s42/0", "train/s42/1"]


def test_several_tasks_are_mixed_by_weight_and_the_order_of_their_names_changes_nothing(tiny_model_dir: str) -> None:
    one, other = (small(tiny_model_dir, {n: 1 + (n == "letters") for n in names}, 6) for names in
                  (["arithmetic", "letters"], ["letters", "arithmetic"]))  # fmt: skip
    assert one.key() == other.key() and one.questions.requests == other.questions.requests
    ids = [r.id for r in one.questions.requests]
    assert [i.split("/")[0] for i in ids] == ["letters", "arithmetic", "letters", "letters", "arithmetic", "letters"]
    alone = {n: [r.prompt_ids for r in small(tiny_model_dir, n, c).questions.requests]
             for n, c in (("arithmetic", 2), ("letters", 4))}  # fmt: skip
    for name, prompts in alone.items():
        assert [r.prompt_ids for r in one.questions.requests if r.id.startswith(name)] == prompts, "the first rows"
    assert one.key() != small(tiny_model_dir, ["arithmetic", "letters"], 6).key(), "other weights, other prompts"
    assert one.questions.counts == {"prompts": 6, "truncated": 0, "rejected": 0, "requests": 6}


def test_the_split_that_the_prompts_are_is_named(tiny_model_dir: str, tmp_path: Path) -> None:
    """MMLU's auxiliary rows are absent here: validation stands in for them, and the result must say so."""
    (tmp_path / "mmlu").mkdir()
    for split in ("test", "validation"):
        row = {"question": f"of {split}", "choices": list("wxyz"), "answer": 1, "subject": "anatomy"}
        (tmp_path / "mmlu" / f"{split}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    options: Any = {"num_prompts": 1, "data_dir": str(tmp_path)}
    assert small(tiny_model_dir, "mmlu", **options).questions.split == "validation"
    options["num_prompts"] = 2
    assert small(tiny_model_dir, ["mmlu", "letters"], **options).questions.split == "letters: train, mmlu: validation"


def test_a_batch_is_of_one_task_and_has_its_limit(tiny_model_dir: str) -> None:
    recipe = small(tiny_model_dir, ["arithmetic", "letters"], 6)
    names = [{r.id.split("/")[0] for r in batch} for batch in recipe.batches()]
    assert names == [{"arithmetic"}, {"arithmetic"}, {"letters"}, {"letters"}]
    limits = [recipe.sampling_of(batch).max_new_tokens for batch in recipe.batches()]
    own = [load_task(name).max_new_tokens for name in ("arithmetic", "letters")]
    assert limits == [own[0], own[0], own[1], own[1]] and own[0] != own[1]
    assert recipe.key()["max_new_tokens"] == dict(zip(("arithmetic", "letters"), own))
    same = small(tiny_model_dir, ["arithmetic", "letters"], 6, max_new_tokens=7)
    assert {same.sampling_of(batch).max_new_tokens for batch in same.batches()} == {7}
    one = small(tiny_model_dir, "letters", 5)
    assert one.batches() == form_batches(one.questions.requests, 2, None, one.questions.new_tokens)


def test_a_file_of_ones_own_is_one_of_the_tasks(tiny_model_dir: str, tmp_path: Path) -> None:
    """With its own system prompt and rule of judging, which the other task does not get."""
    rows = tmp_path / "mine.jsonl"
    rows.write_text("".join(f'{{"prompt": "Say {i}:", "target": " {i}", "split": "train"}}\n' for i in range(4)))
    file = {"path": str(rows), "system_prompt": "Be brief.", "score": "contains"}
    mix = small(tiny_model_dir, ["letters", "custom"], 4, task_file=file).questions
    alone = [small(tiny_model_dir, name, 2, task_file=file).questions for name in ("custom", "letters")]
    ids = {request.id: request.prompt_ids for request in mix.requests}
    assert ids == {f"{q.tasks}/{r.id}": r.prompt_ids for q in alone for r in q.requests} and len(ids) == 4
    assert [part.task.answer_type for part in mix.asked.values()] == ["rule", "letter"]
