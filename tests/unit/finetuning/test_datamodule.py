"""The data module alone: what a corpus depends on, batches, bad input, and a plain Trainer around it."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from spd_lightning import SelfGenerationDataModule, SPDFineTuningModule
from spd_lightning.artifacts.locks import file_lock
from spd_lightning.artifacts.store import ArtifactStore, fingerprint
from spd_lightning.errors import UserError
from spd_lightning.generation.module import SelfGenerationModule
from spd_lightning.generation.recipe import finish
from spd_lightning.model.load import load_model
from spd_lightning.subspace.choice import subspace_from_moments
from spd_lightning.subspace.moments import Moments
from spd_lightning.subspace.sites import kv_sites
from tests.conftest import byte_tokenizer, tiny_model

PROMPTS = ["Hello", "A longer prompt than that", "Two and two?", "b", "What now, and why?", "Hi there"]


@pytest.fixture
def task_file(tmp_path: Path) -> str:
    path = tmp_path / "mine.jsonl"
    rows = [{"id": f"r{i}", "prompt": p, "target": " x", "split": "train"} for i, p in enumerate(PROMPTS)]
    rows.append({"id": "t", "prompt": "Test", "target": " x", "split": "test"})
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def subspace_file(tmp_path: Path, tiny_model_dir: str) -> str:
    from spd_lightning.model.source import model_fingerprint

    model = load_model(tiny_model_dir, torch.float32)
    moments = Moments(metadata={"model": "tiny", "fingerprint": model_fingerprint(tiny_model_dir)})
    for key, site in kv_sites(model).items():
        moments.update({key: torch.randn(50, site.kv_dim)})
    subspace_from_moments(moments, rank=4).save(tmp_path / "subspace.safetensors")
    return str(tmp_path / "subspace.safetensors")


@pytest.fixture
def make(tiny_model_dir: str, task_file: str, tmp_path: Path) -> Any:
    def made(**options: Any) -> SelfGenerationDataModule:
        defaults = {
            "model_name_or_path": tiny_model_dir,
            "task": "custom",
            "task_file": task_file,
            "method": "ssd",
            "max_new_tokens": 6,
            "dtype": "float32",
        }
        data = SelfGenerationDataModule(**{**defaults, **options})
        data.settle(data.recipe, ArtifactStore(tmp_path / "store"))
        return data

    return made


def test_the_base_is_not_trained(make: Any) -> None:
    """In Python it was, on completions that were sampled as ssd's are."""
    with pytest.raises(UserError, match=r"^method=base generates and trains nothing\. Set --data\.method to psr, ssd"):
        make(method="base").setup("fit")


def test_another_model_than_the_one_that_answers_is_not_trained(make: Any, tmp_path: Path) -> None:
    """It would have been, on tokens of the other's tokenizer."""
    other = tmp_path / "other"
    tiny_model("llama", seed=1).save_pretrained(other)
    byte_tokenizer().save_pretrained(other)
    with pytest.raises(UserError, match=r"other is to be trained, but the texts are answers of .*\. Give"):
        trainer(max_epochs=1).fit(SPDFineTuningModule(str(other)), datamodule=make())
    assert not list(tmp_path.rglob("generations.jsonl"))


def trainer(**options: Any) -> Trainer:
    settings = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False}
    return Trainer(**{**settings, "enable_progress_bar": False, "enable_model_summary": False, **options})


def test_fit_with_a_plain_trainer_generates_first_and_only_once(make, tiny_model_dir: str) -> None:  # type: ignore[no-untyped-def]
    data = make(num_generations=2)
    student = SPDFineTuningModule(model_name_or_path=tiny_model_dir, batch_size=4)
    trainer(max_epochs=1).fit(student, datamodule=data)
    records = data.corpus().read()
    assert [(r["id"], r["sample"]) for r in records] == [(f"r{i}", s) for i in range(6) for s in range(2)]
    assert all(r["token_ids"] != s["token_ids"] for r, s in zip(records[::2], records[1::2])), "samples differ"
    assert len(data.train_texts) == 12
    before = data.corpus().path.stat().st_mtime_ns
    again = make(num_generations=2)
    trainer(max_epochs=1).fit(SPDFineTuningModule(model_name_or_path=tiny_model_dir), datamodule=again)
    assert again.corpus().path.stat().st_mtime_ns == before


def test_predict_with_a_plain_trainer_writes_the_corpus_and_compares_without_projection(
    make: Any, subspace_file: str, tiny_model_dir: str
) -> None:
    data = make(method="spd", subspace=subspace_file, batch_size=4)
    corpus = data.corpus()
    module = SelfGenerationModule(data.recipe, corpus)
    trainer().predict(module, return_predictions=False)
    corpus.finalise(data.recipe.questions.requests)
    assert [(g.id, g.prompt) for g in module.unprojected] == [(f"r{i}", PROMPTS[i]) for i in range(4)]
    plain = make()  # the same noise without a subspace
    trainer().predict(SelfGenerationModule(plain.recipe, plain.corpus()), return_predictions=False)
    plain.corpus().finalise(plain.recipe.questions.requests)
    expected = {r["id"]: r["token_ids"] for r in plain.corpus().read()}
    assert all(list(g.token_ids) == expected[g.id] for g in module.unprojected)
    assert {r["id"]: r["token_ids"] for r in corpus.read()} != expected, "the projection changed nothing"
    state = load_model(tiny_model_dir, torch.float32).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in module.model.state_dict().items())


def test_a_finished_corpus_of_other_settings_is_refused(make: Any, tmp_path: Path) -> None:
    """``corpus_dir`` names a folder; what stands in it must be what these options make."""
    folder = tmp_path / "corpus"
    student = SPDFineTuningModule(make().recipe.model_name_or_path)
    trainer(max_epochs=1).fit(student, datamodule=make(corpus_dir=str(folder)))
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    make(corpus_dir=str(folder)).setup("fit")
    with pytest.raises(UserError, match=r"holds a corpus of other settings \(temperature: 0.7 there, 0.8 here\)"):
        make(corpus_dir=str(folder), temperature=0.8).setup("fit")
    with pytest.raises(UserError, match=r"prompts: '\w+\.\.\.' there"):
        make(corpus_dir=str(folder), num_prompts=3).corpus()
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    (folder / "complete.json").unlink()
    with pytest.raises(UserError, match=r"generations.jsonl without the record"):
        make(corpus_dir=str(folder)).corpus()


def test_what_the_tokenizer_makes_of_the_prompts_is_in_the_key(make: Any) -> None:
    one, other = make(), make()
    other.recipe.questions.requests[0] = dataclasses.replace(other.recipe.questions.requests[0], prompt_ids=(1, 2, 3))
    assert one.recipe.key()["prompts"] == other.recipe.key()["prompts"] and one.recipe.key() != other.recipe.key()


def test_what_a_corpus_depends_on_is_in_its_fingerprint(make: Any, task_file: str) -> None:
    name = lambda **options: fingerprint("corpus", **make(**options).recipe.key())  # noqa: E731
    first = name()
    other = [
        {"num_prompts": 3},
        {"num_generations": 2},
        {"max_new_tokens": 7},
        {"max_prompt_length": 5},
        {"long_prompts": "reject"},
        {"truncation": "end"},
        {"stop": ["\n"]},
        {"temperature": 1.0},
        {"top_p": 0.5},
        {"top_k": 3},
        {"min_p": 0.1},
        {"repetition_penalty": 1.1},
        {"batch_size": 3},
        {"batch_tokens": 100},
        {"engine": "vllm"},
        {"seed": 1},
        {"dtype": "bfloat16"},
    ]
    assert len({first, *(name(**options) for options in other)}) == 1 + len(other)
    assert name() == first and name(val_fraction=0.5) == first
    assert name(stop=["\n"], stop_eos=False) == name(stop=["\n"]), "which is about what is trained"
    assert name(repetition_penalty=1.0) == first, "1 is none"
    assert name(batch_tokens=100, batch_size=3) == name(batch_tokens=100), "the budget takes the place of the size"


def test_token_budget_forms_the_batches(make: Any) -> None:
    data = make(batch_tokens=64)
    for batch in data.recipe.batches():
        assert len(batch) == 1 or len(batch) * (max(len(r.prompt_ids) for r in batch) + 6) <= 64
    assert [len(b) for b in data.recipe.batches()] == [3, 2, 1]  # widths 7 11 14 | 24 25 | 31
    assert [len(b) for b in make(batch_size=4).recipe.batches()] == [4, 2]


def test_long_prompts_are_cut_or_left_out_counted_and_said(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("spd_lightning.finetuning.datamodule.rank_zero_info", said.append)
    data = make(max_prompt_length=10)
    assert [len(r.prompt_ids) for r in data.recipe.questions.requests] == [5, 10, 10, 1, 10, 8]
    assert data.recipe.questions.counts == {"prompts": 6, "truncated": 3, "rejected": 0, "requests": 6}
    data = make(max_prompt_length=10, long_prompts="reject")
    assert [r.id for r in data.recipe.questions.requests] == ["r0", "r3", "r5"]
    assert data.recipe.questions.counts == {"prompts": 6, "truncated": 0, "rejected": 3, "requests": 3}
    assert "3 of 6 prompts are longer than 10 tokens and lose the middle of their text" in said[0]
    assert "3 of 6 prompts are longer than 10 tokens and are left out" in said[1] and len(said) == 2
    cut = {
        side: make(max_prompt_length=10, truncation=side).recipe.questions.requests
        for side in ("middle", "start", "end")
    }
    tokenizer = byte_tokenizer()
    for side, requests in cut.items():
        for request in (r for r in requests if len(r.prompt.encode()) > 10):
            raw = request.prompt.encode()
            left = {"middle": raw[:5] + raw[-5:], "start": raw[-10:], "end": raw[:10]}[side]
            assert tokenizer.decode(request.prompt_ids) == left.decode(errors="replace")
    assert len(make(max_prompt_length=1024).recipe.questions.requests) == 6
    assert len(said) == 5, "nothing is said where nothing is cut"


def written(data: SelfGenerationDataModule, completions: list[str]) -> SelfGenerationDataModule:
    """The data module set up for fit, with these completions as its corpus, each ended by the model itself."""
    tokenizer = byte_tokenizer()
    records = []
    for request, text in zip(data.recipe.questions.requests, completions, strict=True):
        ids = [*tokenizer(text)["input_ids"], 257]
        words = {"completion": text, "token_ids": ids, "num_tokens": len(ids), "finish_reason": "stop", "seed": 42}
        records.append({"id": request.id, "sample": request.sample, "prompt": request.prompt, **words})
    corpus = data.corpus()
    corpus.append(records)
    finish(data.recipe, corpus, data.store)
    data.setup("fit")
    return data


def test_raw_output_has_no_stop_strings_unless_asked(make: Any) -> None:
    for task in ("arithmetic", "letters", "functions"):
        data = make(task=task, task_file=None, num_prompts=2)
        assert (
            data.recipe.questions.asked[task].task.stop
            and data.recipe.sampling.stop == ()
            and data.recipe.key()["stop"] == []
        )
    asked = make(task="letters", task_file=None, stop=["\n", "Q:"])
    assert asked.recipe.sampling.stop == ("\n", "Q:") and asked.recipe.key()["stop"] == ["\n", "Q:"]


def test_what_is_judged_is_cut_and_what_is_trained_is_not(make: Any) -> None:
    data = make(task="arithmetic", task_file=None, num_prompts=4, method="filtered")
    gold = [example.expected for example in data.recipe.questions.prompts]
    later = "\nQuestion: 1 plus 1?\nAnswer: #### 777777"  # a question of its own, answered wrongly
    right = [f" #### {gold[0]}{later}", f" It is {gold[1]}.", "\nQuestion: #### " + gold[2], " #### 777777"]
    written(data, right)
    assert data.facts["kept"] == {"rule": "correct", "kept": 2, "of": 4}
    assert [data.recipe.questions.asked["arithmetic"].judged_part(text) for text in right[:2]] == [
        f" #### {gold[0]}",
        right[1],
    ]
    tokenizer = byte_tokenizer()
    assert [tokenizer.decode(t.completion_ids) for t in data.train_texts] == 2 * [text + "<eos>" for text in right[:2]]


def test_the_corpus_keeps_every_completion_and_says_how_many_are_empty(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    data = written(make(), [" a", "", " b", " ", "", " c"])
    assert data.facts["texts"] == {"texts": 6, "empty": 3}
    assert [t.completion_ids[-1] for t in data.train_texts] == [257] * 6
    assert any("3 of 6 completions are empty and would be trained as they were" in line for line in caplog.messages)


@pytest.mark.parametrize(("stop_eos", "left"), [(True, " a<eos>"), (False, " a\n")])
def test_a_completion_that_ended_at_a_stop_string_is_trained_as_asked(make: Any, stop_eos: bool, left: str) -> None:
    data = make(stop=["\n"], stop_eos=stop_eos)
    tokenizer = byte_tokenizer()
    ids = tokenizer(" a\n")["input_ids"]
    words = {"completion": " a", "token_ids": ids, "num_tokens": len(ids), "finish_reason": "stop", "seed": 42}
    corpus = data.corpus()
    corpus.append(
        [{"id": r.id, "sample": r.sample, "prompt": r.prompt, **words} for r in data.recipe.questions.requests]
    )
    finish(data.recipe, corpus, data.store)
    data.setup("fit")
    assert {tokenizer.decode(t.completion_ids) for t in data.train_texts} == {left}


def test_whole_prompts_are_held_out(make: Any) -> None:
    data = written(make(num_generations=3, val_fraction=0.3), [f" {i}" for i in range(18)])
    assert len(data.val_texts) == 6 and len(data.train_texts) == 12
    assert not {t.prompt_ids for t in data.val_texts} & {t.prompt_ids for t in data.train_texts}
    with pytest.raises(UserError, match=r"^val_fraction=0.3 holds out prompts, but there is only one"):
        make(num_prompts=1, num_generations=3, val_fraction=0.3).check_options()


def test_methods_and_their_sampling(make: Any) -> None:
    options = {"top_p": 0.8, "top_k": 5, "min_p": 0.1, "temperature": 0.6}
    plain, truncated = make(method="psr", **options).recipe.sampling, make(method="ssd", **options).recipe.sampling
    assert (plain.top_p, plain.top_k, plain.min_p, plain.temperature) == (1.0, 5, 0.0, 0.6)
    assert make(method="psr").recipe.sampling.top_k == 0, "no truncation at all unless a top-k is asked for"
    assert (truncated.top_p, truncated.top_k, truncated.min_p) == (0.8, 5, 0.1)
    assert {make(method=m, repetition_penalty=1.1).recipe.sampling.repetition_penalty for m in ("psr", "ssd")} == {1.1}
    with pytest.raises(UserError, match=r"^method=spd needs a subspace"):
        make(method="spd").recipe.load_subspace()


def test_chat_format_wraps_the_prompt(make: Any, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}</>"
    tiny_model().save_pretrained(tmp_path / "chat")
    tokenizer.save_pretrained(tmp_path / "chat")
    data = make(model_name_or_path=str(tmp_path / "chat"), prompt_format="chat")
    assert (
        tokenizer.decode(data.recipe.questions.requests[0].prompt_ids) == "<user>Hello</>"
        and data.recipe.questions.requests[0].prompt == "Hello"
    )


def test_progress_moves_within_a_batch(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from spd_lightning.generation import module

    monkeypatch.setattr(module, "REFRESH", 0.0)
    seen: list[tuple[float, str]] = []

    class Bar(TQDMProgressBar):
        def init_predict_tqdm(self) -> Any:
            bar = super().init_predict_tqdm()
            bar.set_postfix_str = lambda text: seen.append((bar.n, text))
            return bar

    data = make(max_new_tokens=5)
    loop = trainer(callbacks=[Bar()], enable_progress_bar=True)
    loop.predict(SelfGenerationModule(data.recipe, data.corpus()), return_predictions=False)
    assert [n for n, _ in seen] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert re.fullmatch(r"\d+ tokens/s, 6 of 6 rows open", seen[0][1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_tokens": 0}, "batch_tokens=0"),
        ({"num_generations": -1}, "num_generations=-1"),
        ({"num_prompts": 0}, "num_prompts=0"),
        ({"val_fraction": 1.0}, "val_fraction=1.0"),
        ({"stop": "Q:"}, "stop='Q:' is not possible"),
        ({"stop": ["a", ""]}, "stop=('a', '') is not possible"),
        ({"max_prompt_length": 0}, "max_prompt_length=0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"top_k": -1}, "top_k=-1"),
        ({"min_p": 2.0}, "min_p=2.0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0"),
    ],
)
def test_options_out_of_range(make: Any, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        make(**options)


def test_a_prompt_beyond_the_context_is_told_before_anything_is_generated(make: Any) -> None:
    with pytest.raises(UserError, match=r"'r1' has 25 tokens; with max_new_tokens=2030 .* context of 2048"):
        make(max_new_tokens=2030).recipe.questions.read()


def test_subspace_of_another_model_is_refused(make: Any, subspace_file: str, tmp_path: Path) -> None:
    tiny_model(seed=5).save_pretrained(tmp_path / "other")
    byte_tokenizer().save_pretrained(tmp_path / "other")
    data = make(model_name_or_path=str(tmp_path / "other"), method="spd", subspace=subspace_file)
    with pytest.raises(UserError, match="belongs to"):
        data.recipe.load_subspace()


def test_part_of_another_corpus_is_refused(make: Any, tmp_path: Path, tiny_model_dir: str) -> None:
    folder = tmp_path / "corpus"
    other = make(corpus_dir=str(folder), seed=1).corpus()
    other.append([{"id": "r0", "sample": 0}])
    data = make(corpus_dir=str(folder))
    with pytest.raises(UserError, match=rf"part-0.jsonl belongs to another corpus .*'{other.fingerprint}'"):
        trainer(max_epochs=1).fit(SPDFineTuningModule(model_name_or_path=tiny_model_dir), datamodule=data)


def test_a_model_that_says_nothing_stops_the_run_with_examples(make: Any, tmp_path: Path) -> None:
    model = tiny_model(tie_word_embeddings=False)
    with torch.no_grad():  # every hidden state is a vector of ones, which only the end of the sequence answers to
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "embed" in name or "norm" in name else 0.0)
        model.lm_head.weight[257] = 1.0
    model.save_pretrained(tmp_path / "silent")
    byte_tokenizer().save_pretrained(tmp_path / "silent")
    silent = str(tmp_path / "silent")
    data = make(model_name_or_path=silent)
    with pytest.raises(UserError, match=r"Every one of the 6 completions is empty \(r0: prompt ends 'Hello', 1 tokens"):
        trainer(max_epochs=1).fit(SPDFineTuningModule(model_name_or_path=silent), datamodule=data)
    assert not data.corpus().is_final()


def test_the_weights_are_given_back_when_decoding_fails(
    make: Any, subspace_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(method="spd", subspace=subspace_file)
    module = SelfGenerationModule(data.recipe, data.corpus())
    module.configure_model()
    assert module.model is not None
    before = {name: value.clone() for name, value in module.model.state_dict().items()}

    def fail(*args: Any, **kwargs: Any) -> None:
        assert not all(torch.equal(v, before[n]) for n, v in module.model.state_dict().items()), "nothing was folded"
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr("spd_lightning.generation.module.generate_batch", fail)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        trainer().predict(module, return_predictions=False)
    assert all(torch.equal(v, before[n]) for n, v in module.model.state_dict().items())


def test_a_corpus_that_another_run_writes_is_waited_for(
    make: Any, tiny_model_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spd_lightning.generation.corpus.WAIT_S", 0.01)
    other, data = make(), make()
    corpus = other.corpus()
    held, seen = threading.Event(), threading.Event()

    def write() -> None:
        with file_lock(corpus.folder / ".lock", "the other run"):
            held.set()
            seen.wait(timeout=30)
            corpus.append([record(r) for r in other.recipe.questions.requests])
            finish(other.recipe, corpus, other.store)

    def record(r: Any) -> dict[str, Any]:
        words = {"completion": " hi", "token_ids": [32, 104], "num_tokens": 2, "finish_reason": "length", "seed": 42}
        return {"id": r.id, "sample": r.sample, "prompt": r.prompt, **words}

    def told(message: str) -> None:
        assert seen.is_set() or "another run generates this corpus" in message, "the first that is said"
        seen.set()

    monkeypatch.setattr("spd_lightning.finetuning.datamodule.rank_zero_info", told)
    monkeypatch.setattr(data, "_decode", lambda *args: pytest.fail("it was generated twice"))
    run = threading.Thread(target=write)
    run.start()
    held.wait(timeout=30)
    trainer(max_epochs=1).fit(SPDFineTuningModule(model_name_or_path=tiny_model_dir), datamodule=data)
    run.join(timeout=30)
    assert seen.is_set() and len(data.train_texts) == 6
    assert not (corpus.folder / ".lock").exists()
    assert data.store.is_complete(corpus.folder), "what made the corpus alone also says that it is complete"


def test_what_would_end_a_later_stage_is_told_first(make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"All 3 prompts are longer .* set long_prompts .--data.long_prompts. truncate"):
        make(
            long_prompts="reject", max_prompt_length=1, num_prompts=3, task_file=None, task="arithmetic"
        ).check_options()
    with pytest.raises(UserError, match="prompt_format='chat', but the tokenizer has no chat template"):
        make(prompt_format="chat").check_options()
    make(prompt_format="chat", method="base").check_options()  # generates nothing
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match="vLLM engine cannot be imported"):
        make(engine="vllm").check_options()
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("allow", "consent"), [(None, False), (False, False), (True, True)])
def test_filtered_on_code_asks_for_consent_before_anything_runs(
    make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, allow: bool | None, consent: bool
) -> None:
    asked: list[bool | None] = []
    monkeypatch.setattr("spd_lightning.scoring.judging.may_execute", lambda given: asked.append(given) or given)
    data = make(task="functions", task_file=None, method="filtered", num_prompts=2, allow_code_execution=allow)
    if consent:
        data.check_options()
    else:
        with pytest.raises(UserError, match=f"allow_code_execution={allow} does not allow"):
            data.check_options()
        data.check_options(trains=False)
    assert asked == [allow]


def test_a_fit_ends_where_too_few_completions_hold_text(make: Any) -> None:
    with pytest.raises(UserError, match=r"Only 1 of 6 completions hold text \(5 are empty\), and min_completions"):
        written(make(), [" a", "", " ", "", "", ""])
    assert len(written(make(min_completions=0.1, seed=1), [" a", "", " ", "", "", ""]).train_texts) == 6
    with pytest.raises(UserError, match=r"min_completions=50 is no share"):
        make(min_completions=50)
