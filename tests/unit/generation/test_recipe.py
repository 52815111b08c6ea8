"""A recipe by itself: no option is forgotten in its key, and what a run knows is handed in as a new recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from spd_lightning.generation.questions import Questions
from spd_lightning.generation.recipe import Recipe

# Named otherwise in the key, or there by what they lead to: the prompts, the tokens, the sampling.
ELSEWHERE = {"questions", "model_name_or_path", "task_name", "task_file", "data_dir", "num_prompts", "method", "say"}


def small(model: str) -> Recipe:
    questions = Questions(model, "arithmetic", num_prompts=2, max_prompt_length=1024)
    return Recipe(questions, method="ssd", dtype="float32")


def test_every_option_is_in_the_key_or_there_by_what_it_leads_to(tiny_model_dir: str) -> None:
    fields = {field.name for kind in (Questions, Recipe) for field in dataclasses.fields(kind)}
    key = small(tiny_model_dir).key()
    assert fields >= ELSEWHERE and fields - ELSEWHERE <= key.keys()
    assert key.keys() - fields == {"model", "task", "task_version", "prompts", "prompt_tokens"}


def test_a_settled_recipe_keeps_the_questions_that_were_read(tiny_model_dir: str) -> None:
    recipe = small(tiny_model_dir)
    read = recipe.questions.requests
    settled = dataclasses.replace(recipe, dtype="auto").on(torch.device("cpu")).under(Path("a.safetensors"))
    assert settled.questions.requests is read and settled.subspace == "a.safetensors"
    assert settled.dtype in ("float32", "bfloat16") and settled.on("cpu") == settled
