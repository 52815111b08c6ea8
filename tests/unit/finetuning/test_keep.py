"""Which completions are trained on: each rule of ``data.keep`` on a corpus written by hand."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from spd_lightning import SelfGenerationDataModule
from spd_lightning.artifacts.store import ArtifactStore
from spd_lightning.errors import UserError
from spd_lightning.finetuning.keep import renumber
from spd_lightning.finetuning.texts import TrainingText
from spd_lightning.finetuning.training_set import repeated
from spd_lightning.generation.recipe import finish
from tests.conftest import byte_tokenizer


@pytest.fixture
def make(tiny_model_dir: str, tmp_path: Path) -> Any:
    def made(task: str = "arithmetic", **options: Any) -> SelfGenerationDataModule:
        defaults = {"model_name_or_path": tiny_model_dir, "method": "ssd", "max_new_tokens": 8, "dtype": "float32"}
        data = SelfGenerationDataModule(task=task, **{**defaults, **options})
        data.settle(data.recipe, ArtifactStore(tmp_path / "store"))
        return data

    return made


def trained(data: SelfGenerationDataModule, completions: list[str]) -> list[tuple[str, str]]:
    """Id and completion of every text that is trained on, for a corpus of these completions."""
    tokenizer = byte_tokenizer()
    corpus = data.corpus()
    records = []
    for request, text in zip(data.recipe.questions.requests, completions, strict=True):
        ids = [*tokenizer(text)["input_ids"], 257]
        words = {"completion": text, "token_ids": ids, "num_tokens": len(ids), "finish_reason": "stop", "seed": 42}
        records.append({"id": request.id, "sample": request.sample, "prompt": request.prompt, **words})
    corpus.append(records)
    finish(data.recipe, corpus, data.store)
    data.check_options()
    data.setup("fit")
    assert all(text.completion_ids[-1] == 257 for text in data.train_texts)
    return [(text.id, tokenizer.decode(text.completion_ids[:-1])) for text in data.train_texts]


def test_gold_filters_part_the_corpus_and_what_is_kept_repeats_to_the_budget(make: Any) -> None:
    gold = [e.expected for e in make(num_prompts=5).recipe.questions.prompts]
    completions = [f" #### {gold[0]}", " #### 777777", f" #### {gold[2]}", " none", " #### 777777"]
    ids = [r.id for r in make(num_prompts=5).recipe.questions.requests]
    for keep, places, repeats in (("correct", [0, 2], 3), ("wrong", [1, 3, 4], 2)):
        data = make(num_prompts=5, keep=keep)
        texts = trained(data, completions)
        kept = [(f"{ids[i]}:0", completions[i]) for i in places]
        assert texts[: len(kept)] == kept and len(texts) == 5 and set(texts) == set(kept)
        counts = sorted(texts.count(text) for text in kept)
        assert counts[-1] - counts[0] <= 1, "all repeat equally often, but for the rest"
        assert data.facts["kept"] == {"rule": keep, "kept": len(places), "of": 5}
        assert data.facts["budget"]["texts"] == 5 and data.facts["budget"]["repeats"] == repeats
        assert data.facts["budget"]["completion_tokens"] == sum(len(t.completion_ids) for t in data.train_texts)


def test_repeats_bring_the_tokens_as_near_as_they_can(make: Any) -> None:
    """Three of eight are right; two of them have a place left, and the lengths decide which."""
    gold = [e.expected for e in make(num_prompts=8).recipe.questions.prompts]
    right = [f" #### {gold[0]}", f" {'so ' * 30}#### {gold[1]}", f" {'so ' * 20}#### {gold[2]}"]
    short, long = [*right, *[" 777777"] * 5], [*right, *[f" 777777{' on' * 25}"] * 5]
    for completions in (short, long):
        data = make(num_prompts=8, keep="correct", max_new_tokens=len(completions[-1]))
        texts = trained(data, completions)
        tokens = data.facts["budget"]["completion_tokens"]
        wanted = sum(len(text) + 1 for text in completions)
        sizes = [len(text) + 1 for text in right]
        possible = [2 * sum(sizes) + a + b for i, a in enumerate(sizes) for b in sizes[i + 1 :]]
        assert len(texts) == 8 and abs(tokens - wanted) == min(abs(p - wanted) for p in possible)


def test_texts_repeat_equally_often_but_for_the_rest() -> None:
    texts = [TrainingText(str(i), (1,), (2,) * n) for i, n in enumerate((3, 9, 5))]
    assert repeated(texts, 3, 17, 0) == texts == repeated(texts, 2, 17, 0)
    assert repeated(texts, 6, 0, 0) == texts * 2
    assert repeated(texts, 4, 17 + 5, 0) == [*texts, texts[2]] == repeated(texts, 4, 17 + 6, 0)
    assert [t.id for t in repeated(texts, 8, 34 + 14, 0)][6:] == ["2", "1"]  # 5 is near half of 14, and 9 is the rest


def test_majority_takes_one_text_with_the_most_frequent_answer_and_no_tie(make: Any) -> None:
    answers = [["1", "2", "2.0", "x"], ["3", "4", "3", "4"], ["x", "x", "x", "x"], ["9", "8", "7", "9"]]
    completions = [f" so #### {a}" if a != "x" else " hm" for row in answers for a in row]
    data = make(num_prompts=4, num_generations=4, keep="majority")
    texts = trained(data, completions)
    ids = list(dict.fromkeys(r.id for r in data.recipe.questions.requests))
    assert set(texts) == {(f"{ids[0]}:1", " so #### 2"), (f"{ids[3]}:0", " so #### 9")}
    assert data.facts["kept"] == {"rule": "majority", "kept": 2, "of": 16}
    assert len(texts) == 4, "the budget is one text a prompt"
    letters = make("letters", num_prompts=2, num_generations=3, keep="majority")
    assert {t for _, t in trained(letters, [" B", " C", " B", " A", " D", " C"])} == {" B"}


def test_every_prompt_gets_the_completion_of_another(make: Any) -> None:
    data = make(num_prompts=7, num_generations=2, keep="shuffled")
    completions = [f" {i}" for i in range(14)]
    texts = trained(data, completions)
    owner = {f"{r.id}:{r.sample}": text for r, text in zip(data.recipe.questions.requests, completions)}
    prompt_of = {text: name.rsplit(":", 1)[0] for name, text in owner.items()}
    assert [name for name, _ in texts] == list(owner) and sorted(t for _, t in texts) == sorted(completions)
    assert all(prompt_of[text] != name.rsplit(":", 1)[0] for name, text in texts)
    assert all(list(owner.values()).index(text) % 2 == int(name[-1]) for name, text in texts), "sample by sample"
    other = trained(make(num_prompts=7, num_generations=2, keep="shuffled", seed=43), completions)
    assert other != texts


def test_numbers_that_are_not_in_the_question_become_others_of_their_length(make: Any) -> None:
    data = make(num_prompts=3, keep="renumbered")
    questions = [e.meta["question"] for e in data.recipe.questions.prompts]
    given = [re.findall(r"\d+", q) for q in questions]
    completions = [f" {' + '.join(g)} = 1234, so 1234 of 0.5 and 1,250\n#### 98" for g in given]
    texts = trained(data, completions)
    for (_, new), old, numbers in zip(texts, completions, given):
        assert re.sub(r"\d", "0", new) == re.sub(r"\d", "0", old)
        assert new.split("=")[0] == old.split("=")[0], "the question's numbers stay"
        first, again, *rest, last = re.findall(r"\d[\d,.]*\d|\d", new.split("=")[1])
        assert first == again != "1234" and rest[0] != "0.5" and rest[1] != "1,250" and last != "98"
        assert last not in numbers
    assert texts == trained(make(num_prompts=3, keep="renumbered"), completions)
    assert texts != trained(make(num_prompts=3, keep="renumbered", seed=43), completions)


def test_a_number_of_the_solved_examples_is_not_one_of_the_question(make: Any) -> None:
    """All prompts have the same three, and most one-digit answers stand somewhere in them."""
    data = make(num_prompts=4, keep="renumbered")
    solved = re.findall(r"\d+", next(iter(data.recipe.questions.asked.values())).task.solved)
    completions = []
    for e in data.recipe.questions.prompts:
        free = [n for n in solved if n not in re.findall(r"\d+", e.meta["question"])]
        completions.append(f" #### {free[0]}")
    assert all(new != old for (_, new), old in zip(trained(data, completions), completions))


def test_renumber_alone() -> None:
    draw = random.Random(1)
    assert renumber("no number", "5", draw) == "no number" and renumber("5 and 5", "only 5", draw) == "5 and 5"
    every = renumber("0 1 2 3 4 5 6 7 8 9", "", random.Random(3)).split()
    assert all(new != str(old) for old, new in enumerate(every))
    assert all(renumber("100", "", random.Random(i))[0] != "0" for i in range(50))


def test_the_shortest_tenth_is_dropped_and_made_up_for(make: Any) -> None:
    data = make(num_prompts=20, keep="drop_shortest")
    completions = [" x" * (1 if i in (3, 4, 5) else 9) for i in range(20)]
    texts = trained(data, completions)
    ids = [r.id for r in data.recipe.questions.requests]
    kept = {name for name, _ in texts}
    assert len(texts) == 20 and len(kept) == 18
    assert len({f"{ids[i]}:0" for i in (3, 4, 5)} - kept) == 2, "two of the three equally short ones, drawn"
    assert data.facts["kept"] == {"rule": "drop_shortest", "kept": 18, "of": 20}


def test_held_out_prompts_are_not_repeated(make: Any) -> None:
    gold = [e.expected for e in make(num_prompts=10).recipe.questions.prompts]
    data = make(num_prompts=10, keep="correct", val_fraction=0.2)
    trained(data, [f" #### {gold[i]}" if i < 5 else " 777777" for i in range(10)])
    assert len(data.val_texts) == 1 and len(data.train_texts) == 8
    assert not {t.prompt_ids for t in data.val_texts} & {t.prompt_ids for t in data.train_texts}


def test_another_sampling_seed_holds_out_the_same_prompts(make: Any) -> None:
    held = []
    for sampling_seed in (None, 7, 8):
        data = make(num_prompts=10, val_fraction=0.3, sampling_seed=sampling_seed)
        trained(data, [f" {i}" for i in range(10)])
        held.append([text.id for text in data.val_texts])
    assert held[0] == held[1] == held[2] and len(held[0]) == 3


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("functions", {"keep": "majority", "num_generations": 8}, "numbers or letters; those of functions are of type"),
        ("arithmetic", {"keep": "majority"}, "needs several samples a prompt, and num_generations=1"),
        ("arithmetic", {"keep": "shuffled", "num_prompts": 1}, "shuffled needs at least two prompts"),
        ("functions", {"keep": "wrong", "allow_code_execution": False}, "A gold filter"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_told_before_anything_runs(
    make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: str, options: dict, message: str
) -> None:
    monkeypatch.setattr("spd_lightning.scoring.judging.may_execute", lambda allow: bool(allow))
    data = make(task, **{"num_prompts": 2, **options})
    with pytest.raises(UserError, match=message):
        data.check_options()
    data.check_options(trains=False)
    assert not (tmp_path / "store").exists()


def test_filtered_is_ssd_with_keep_correct(make: Any) -> None:
    assert make(method="filtered").keep == "correct" == make(method="filtered", keep="correct").keep
    with pytest.raises(UserError, match=r"method=filtered is ssd with keep=correct, not wrong"):
        make(method="filtered", keep="wrong")


def test_nothing_left_is_said(make: Any) -> None:
    with pytest.raises(UserError, match=r"^keep=correct: 0 of 2 completions agree with the gold answer"):
        trained(make(num_prompts=2, keep="correct"), [" #### 777777", " none"])
    with pytest.raises(UserError, match=r"^keep=majority: 0 of 4 completions are left"):
        trained(make(num_prompts=2, num_generations=2, keep="majority"), [" #### 1", " #### 2", " a", " b"])


def test_solved_examples_carry_no_loss_when_the_question_is_learned(make: Any) -> None:
    from spd_lightning.finetuning.batching import make_train_loader

    tokenizer = byte_tokenizer()
    for task, head in (("arithmetic", True), ("letters", False)):
        data = make(task, num_prompts=3, max_prompt_length=2000)
        texts = trained(data, [" a", " b", " c"]) and data.train_texts
        loader = make_train_loader(texts, 3, 2000, 0, 0, 1, 0, loss_on="question")
        (batch,) = loader
        learned = {
            tokenizer.decode([i for i, label in zip(ids, labels) if label != -100], skip_special_tokens=True)
            for ids, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist())
        }
        solved = next(iter(data.recipe.questions.asked.values())).task.solved
        prompts = [e.prompt.removeprefix(solved) for e in data.recipe.questions.prompts]
        begin = 0 if head else 1  # a text's first token is never predicted
        assert learned == {p[begin:] + c for p, c in zip(prompts, (" a", " b", " c"))}
        assert bool(solved) == head


@pytest.mark.parametrize(("side", "left"), [("middle", True), ("start", False), ("end", True)])
def test_solved_tokens_are_those_that_a_cut_leaves(make: Any, side: str, left: bool) -> None:
    data = make(num_prompts=2, max_prompt_length=60, truncation=side)
    whole = make(num_prompts=2, max_prompt_length=2000).recipe.questions
    solved = whole.solved_tokens()
    for request in data.recipe.questions.requests:
        count = data.recipe.questions.solved_tokens()[request.id]
        everything = next(r.prompt_ids for r in whole.requests if r.id == request.id)
        assert solved[request.id] == len(whole.asked["arithmetic"].task.solved)
        assert (count > 0) == left and count <= 60
        assert request.prompt_ids[:count] == (everything[:count] if left else ())
        if side == "end":
            assert count == 60, "nothing of the question is left"


def test_solved_examples_are_found_behind_a_chat_template(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<user>{{ m['content'] }}</user>{% endfor %}<answer>"
    monkeypatch.setattr("spd_lightning.generation.questions.load_tokenizer", lambda name: tokenizer)
    questions = make(num_prompts=2, max_prompt_length=2000, prompt_format="chat").recipe.questions
    for request in questions.requests:
        text = tokenizer.decode(request.prompt_ids[questions.solved_tokens()[request.id] :])
        assert text.startswith("Question:") and text.endswith("</user><answer>")
        assert text.count("Question:") == 1


@pytest.mark.slow
def test_solved_examples_end_at_the_question_with_a_real_tokenizer() -> None:
    """It cuts the white space before a word otherwise than that at the end of a text."""
    from spd_lightning.generation.questions import Questions
    from spd_lightning.model.load import load_tokenizer

    tokenizer = load_tokenizer("smollm2-135m-instruct")
    for task, begins in (("arithmetic", "Question:"), ("functions", "Instruction:"), ("chains", "Question:")):
        questions = Questions("smollm2-135m-instruct", task, num_prompts=4)
        for request in questions.requests:
            left = tokenizer.decode(request.prompt_ids[questions.solved_tokens()[request.id] :])
            assert left.startswith(begins) and left.count(begins) == 1


def test_json_facts(make: Any) -> None:
    data = make(num_prompts=2, keep="shuffled")
    trained(data, [" a", " b"])
    assert json.loads(json.dumps(data.facts)) == data.facts


@pytest.mark.parametrize("keep", ["correct", "wrong", "shuffled", "drop_shortest", "renumbered"])
def test_of_several_tasks_each_is_kept_by_its_own_rule_and_keeps_its_share(make: Any, keep: str) -> None:
    """Numbers and letters, judged as such; arithmetic is right once, letters thrice, and both stay at four texts."""
    data = make(["letters", "arithmetic"], num_prompts=8, keep=keep)
    asked = data.recipe.questions.asked
    right = {e.id: f" #### {e.expected}" if name == "arithmetic" else f" {e.expected}"
             for name, part in asked.items() for e in part.prompts}  # fmt: skip
    wrong = {*(e.id for e in asked["arithmetic"].prompts[1:]), asked["letters"].prompts[0].id}
    written = [" 4242" if r.id in wrong else right[r.id] for r in data.recipe.questions.requests]
    texts = trained(data, written)
    counts = {name: sum(i.startswith(name) for i, _ in texts) for name in asked}
    assert counts == {"arithmetic": 4, "letters": 4}
    by_id = dict(texts)
    kept = {i.rpartition(":")[0] for i in by_id}
    if keep in ("correct", "wrong"):
        assert kept == (wrong if keep == "wrong" else right.keys() - wrong)
    elif keep == "shuffled":
        for name in asked:
            own = [i for i in by_id if i.startswith(name)]
            before = [t for r, t in zip(data.recipe.questions.requests, written) if r.id.startswith(name)]
            assert sorted(by_id[i] for i in own) == sorted(before), "completions stay within their task"
    else:
        assert kept == right.keys(), "a tenth of four is none"


def test_a_task_that_would_vanish_ends_the_run_and_majority_is_asked_of_each(make: Any) -> None:
    data = make(["letters", "arithmetic"], num_prompts=4, keep="correct")
    letters = {e.id: f" {e.expected}" for e in data.recipe.questions.asked["letters"].prompts}
    with pytest.raises(UserError, match="keep=correct: 0 of 2 completions of arithmetic agree with the gold answer"):
        trained(data, [letters.get(r.id, " none") for r in data.recipe.questions.requests])
    with pytest.raises(UserError, match="numbers or letters; those of functions are of type program"):
        make(["letters", "functions"], num_prompts=4, num_generations=2, keep="majority").check_options()
    with pytest.raises(UserError, match="keep=shuffled needs at least two prompts of arithmetic"):
        make({"letters": 3, "arithmetic": 1}, num_prompts=4, keep="shuffled").check_options()
    make(["letters", "arithmetic"], num_prompts=4, num_generations=2, keep="majority").check_options()
