"""The fingerprint of a model: every file that transformers reads counts, no other does, wherever it came from."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from spd_lightning.errors import UserError
from spd_lightning.model import checkpoint_files as source
from spd_lightning.model.checkpoint_files import content_fingerprint
from spd_lightning.model.load import load_config, load_model, load_tokenizer
from spd_lightning.model.source import _dequantised, hub_folder, model_fingerprint, weight_files
from tests.conftest import byte_tokenizer, tiny_model

OPENED: list[str] | None = None


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if OPENED is not None and event == "open" and isinstance(args[0], str):
        OPENED.append(args[0])


sys.addaudithook(_hook)


@pytest.fixture(scope="module")
def full_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with every kind of file: two shards and their index, a slow tokenizer's files, templates."""
    folder = tmp_path_factory.mktemp("models") / "full"
    tiny_model().save_pretrained(folder, max_shard_size="60KB")
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(folder)
    more = {
        "generation_config.json": '{"eos_token_id": 257, "transformers_version": "5.0"}',
        "special_tokens_map.json": "{}",
        "added_tokens.json": "{}",
        "vocab.json": "{}",
        "merges.txt": "#version",
        "tokenizer.model": "model",
        "additional_chat_templates/tool.jinja": "x",
        "README.md": "words",
        ".gitattributes": "lfs",
        "picture.png": "png",
        "consolidated.safetensors": "twice",
        "pytorch_model.bin": "not read beside safetensors",
        "onnx/model.onnx": "other",
        "original/tokenizer.model": "other",
        "training_args.bin": "other",
        "optimizer.pt": "other",
    }
    for name, text in more.items():
        (folder / name).parent.mkdir(exist_ok=True)
        if not (folder / name).exists() or name == "generation_config.json":
            (folder / name).write_text(text)
    return folder


READ = [
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "model-00001-of-*.safetensors",
    "model-00002-of-*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "additional_chat_templates/tool.jinja",
]
NOT_READ = [
    "README.md",
    ".gitattributes",
    "picture.png",
    "consolidated.safetensors",
    "pytorch_model.bin",
    "onnx/model.onnx",
    "original/tokenizer.model",
    "training_args.bin",
    "optimizer.pt",
]


def _change(path: Path) -> None:
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "changed_by_a_test": 1}))
    else:
        path.write_bytes(path.read_bytes() + b"\n")


@pytest.mark.parametrize("name", READ)
def test_a_file_that_transformers_reads_changes_the_fingerprint(name: str, full_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(full_folder, copy)
    before = model_fingerprint(str(full_folder))
    assert model_fingerprint(str(copy)) == before, "a copy elsewhere is the same model"
    (path,) = copy.glob(name)
    _change(path)
    assert model_fingerprint(str(copy)) != before
    if name not in ("config.json", "model.safetensors.index.json") and "-of-" not in name:
        path.unlink()
        assert model_fingerprint(str(copy)) != before, "so does one that is gone"


@pytest.mark.parametrize("name", NOT_READ)
def test_another_file_does_not(name: str, full_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(full_folder, copy)
    before = model_fingerprint(str(copy))
    (path,) = copy.glob(name)
    _change(path)
    assert model_fingerprint(str(copy)) == before


def test_weights_in_one_bin_file_count(tmp_path: Path) -> None:
    import torch

    model = tiny_model()
    model.config.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    before = model_fingerprint(str(tmp_path))
    state = model.state_dict()
    state["model.norm.weight"] += 1
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert model_fingerprint(str(tmp_path)) != before


def test_the_version_that_wrote_a_configuration_does_not_count(full_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(full_folder, copy)
    for name in ("config.json", "generation_config.json"):
        content = json.loads((copy / name).read_text())
        (copy / name).write_text(json.dumps({**content, "transformers_version": "6.0", "_name_or_path": "x"}))
    assert model_fingerprint(str(copy)) == model_fingerprint(str(full_folder))


@pytest.mark.parametrize("layout", ["shards", "one file", "bin", "slow tokenizer"])
def test_nothing_is_read_that_does_not_count(layout: str, full_folder: Path, tmp_path: Path) -> None:
    """What from_pretrained opens, as the interpreter sees it, stands in the fingerprint (Rust opens go unseen)."""
    import torch

    global OPENED
    folder = tmp_path / "model"
    shutil.copytree(full_folder, folder)
    if layout in ("one file", "bin"):
        for path in folder.glob("model*"):
            path.unlink()
        model = tiny_model()
        if layout == "one file":
            model.save_pretrained(folder)
        else:
            torch.save(model.state_dict(), folder / "pytorch_model.bin")
    if layout == "slow tokenizer":
        for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "added_tokens.json"):
            (folder / name).unlink()
        core = byte_tokenizer().backend_tokenizer
        core.model.save(str(folder))  # vocab.json, merges.txt
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    OPENED = []
    try:
        AutoConfig.from_pretrained(folder)
        AutoTokenizer.from_pretrained(folder)
        GenerationConfig.from_pretrained(folder)
        AutoModelForCausalLM.from_pretrained(folder)
        read = {Path(p).relative_to(folder).as_posix() for p in OPENED if p.startswith(str(folder))}
    finally:
        OPENED = None
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    counted = {*source.description_files(names), *source.weight_names(folder)}
    assert {"config.json", "generation_config.json", "tokenizer_config.json"} <= read
    assert read <= counted, read - counted


def test_a_missing_shard_is_named(full_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(full_folder, copy)
    shard = next(iter(copy.glob("model-00001-of-*")))
    shard.unlink()
    with pytest.raises(UserError, match=f"lacks {shard.name}"):
        model_fingerprint(str(copy))


def test_a_large_file_is_hashed_once_and_again_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spd_lightning.artifacts import files

    read: list[str] = []
    real = files._digest
    monkeypatch.setattr(files, "_digest", lambda path: read.append(path) or real(path))
    large = tmp_path / "large.bin"
    large.write_bytes(bytes(files.LARGE))
    first = files.file_sha256(large)
    assert files.file_sha256(large) == first and len(read) == 1
    large.write_bytes(b"1" * files.LARGE)
    assert files.file_sha256(large) != first and len(read) == 2


class FakeHub:
    """A hub with one model repository of two commits; what is asked for is noted."""

    def __init__(self, folders: dict[str, Path], main: str, cache: Path) -> None:
        self.folders, self.main, self.cache = folders, main, cache
        self.online, self.fetched, self.asked = True, [], 0

    def model_info(self, repo: str, revision: str | None = None) -> Any:
        self.asked += 1
        if not self.online:
            raise ConnectionError("no route")
        commit = self.main if revision in (None, "main") else revision
        names = [p.relative_to(self.folders[commit]).as_posix() for p in self.folders[commit].rglob("*") if p.is_file()]
        return SimpleNamespace(sha=commit, siblings=[SimpleNamespace(rfilename=n) for n in names])

    def snapshot_download(
        self, repo: str, revision: str | None = None, allow_patterns: Any = None, local_files_only: bool = False
    ) -> str:
        commit = self.main if revision in (None, "main") else revision
        folder = self.cache / commit
        if local_files_only:
            if not folder.is_dir():
                raise FileNotFoundError(commit)
            return str(folder)
        for name in allow_patterns:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                self.fetched.append(name)
                shutil.copyfile(self.folders[commit] / name, target)
        return str(folder)


@pytest.fixture
def hub(full_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    other = tmp_path / "other"
    shutil.copytree(full_folder, other)
    _change(other / "generation_config.json")
    fake = FakeHub({"a" * 40: full_folder, "b" * 40: other}, "a" * 40, tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: fake)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fake.snapshot_download)
    hub_folder.cache_clear()
    yield fake
    hub_folder.cache_clear()


def test_a_hub_model_is_the_same_before_and_after_its_download(hub: FakeHub, full_folder: Path) -> None:
    before = model_fingerprint("someone/model")
    load_model("someone/model", __import__("torch").float32)
    load_tokenizer("someone/model")
    assert model_fingerprint("someone/model") == before == model_fingerprint(str(full_folder))
    assert hub.asked == 1, "one commit for the whole process"
    hub.online = False
    hub_folder.cache_clear()
    assert model_fingerprint("someone/model") == before, "and without a network"


def test_a_commit_that_is_here_is_not_asked_for_again(hub: FakeHub) -> None:
    hub_folder("someone/model")
    hub_folder("someone/model@" + "a" * 40)
    hub_folder("someone/model", need_weights=False)
    assert hub.asked == 1
    hub_folder("someone/model@" + "b" * 40)
    assert hub.asked == 2


def test_only_what_is_read_is_downloaded(hub: FakeHub) -> None:
    load_config("someone/model", need_weights=False)
    assert not [name for name in hub.fetched if name.endswith((".safetensors", ".bin"))]
    model_fingerprint("someone/model")
    assert not set(hub.fetched) & set(NOT_READ)
    assert len([name for name in hub.fetched if name.endswith(".safetensors")]) == len(
        [f for f in weight_files(Path(hub_folder("someone/model")))]
    )


def test_a_revision_is_another_model(hub: FakeHub) -> None:
    main, other = model_fingerprint("someone/model"), model_fingerprint(f"someone/model@{'b' * 40}")
    assert main == model_fingerprint(f"someone/model@{'a' * 40}") != other
    assert hub_folder(f"someone/model@{'b' * 40}").name == "b" * 40
    hub.online = False
    with pytest.raises(UserError, match=r"model_name_or_path='someone/none' at revision 'v1' cannot be loaded"):
        model_fingerprint("someone/none@v1")


def test_an_existing_folder_with_an_at_sign_is_a_folder(full_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model@home"
    shutil.copytree(full_folder, copy)
    assert source.split_revision(str(copy)) == (str(copy), None)
    assert model_fingerprint(str(copy)) == model_fingerprint(str(full_folder))


@pytest.fixture
def gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that loads as the tiny model, and a cache of its own."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF")
    monkeypatch.setenv("SPD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda **_: tiny_model())
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda **_: byte_tokenizer())
    return path


def test_a_gguf_file_is_dequantised_once(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _dequantised(gguf)
    assert weight_files(folder) and [p.name for p in folder.parent.iterdir()] == [folder.name]
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    assert _dequantised(gguf) == folder


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone", "config"])
def test_a_damaged_copy_is_dequantised_anew(
    how: str, listed: bool, gguf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One of an older version has no list of checksums: what is cut or gone shows by itself."""
    folder = _dequantised(gguf)
    whole = content_fingerprint(folder)
    file = folder / ("config.json" if how == "config" else "model.safetensors")
    data = file.read_bytes()
    if not listed:
        (folder / "spd-checksums.json").unlink()
    file.unlink() if how == "gone" else file.write_bytes(data[:-9] + (b"x" * 9 if how == "flipped" else b""))
    assert _dequantised(gguf) == folder
    remade = listed or how != "flipped"
    assert (content_fingerprint(folder) == whole) == remade == (file.read_bytes() == data)
    assert (f"{folder} was damaged (" in caplog.text) == remade
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_a_damaged_copy_that_cannot_be_removed_is_named(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _dequantised(gguf)
    (folder / "config.json").write_text("{")

    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("shutil.rmtree", refused)
    with pytest.raises(UserError, match=r"is damaged \(.*config\.json.*cannot be removed: Permission denied"):
        _dequantised(gguf)


def test_another_process_may_be_first_to_dequantise(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _dequantised(gguf)
    whole = folder.rename(folder.with_name("whole"))

    def first(**_: Any) -> Any:
        shutil.copytree(whole, folder)
        return tiny_model()

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", first)
    assert _dequantised(gguf) == folder
    assert sorted(p.name for p in folder.parent.iterdir()) == sorted([folder.name, "whole"])


def test_a_cache_that_cannot_be_written_is_named(gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"tiny\.gguf cannot be written to .*cache .*SPD_CACHE_DIR"):
        _dequantised(gguf)
