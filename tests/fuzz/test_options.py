"""Values of every option, YAML files and command lines: told in words, or taken as they stand."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
from typing import Any, get_type_hints

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from spd_lightning.cli.config_file import read_config
from spd_lightning.cli.names import FOLLOWS, file_options
from spd_lightning.cli.parser import CommandLine, options_of
from spd_lightning.evaluation.callback import BenchmarkCallback
from spd_lightning.finetuning.datamodule import SelfGenerationDataModule
from spd_lightning.finetuning.module import SPDFineTuningModule
from spd_lightning.options import check_options
from spd_lightning.subspace.module import SubspaceExtractionModule
from tests.fuzz.cases import cases, damaged, result_of, texts, values

OWNERS: dict[str, Any] = {
    "subspace": SubspaceExtractionModule,
    "data": SelfGenerationDataModule,
    "model": SPDFineTuningModule,
    "evaluation": BenchmarkCallback,
}
WORDS = (
    "spd",
    "gsm8k",
    "arithmetic",
    "letters:hard",
    "auto",
    "null",
    "true",
    "1e3",
    "0.5",
    "[1, 2]",
    "{a: 1}",
    "middle",
)
option_values = st.one_of(values, st.sampled_from(WORDS), st.lists(st.sampled_from(WORDS), max_size=2))
WORDS_TYPED = ("--help", "--config", "-c", "a.yaml", "=", "--", "-1", "--data", "--config=", "--data.num_prompts=")
NAMES = [
    f"{section}.{name}"
    for section, owner in OWNERS.items()
    for name in inspect.signature(owner.__init__).parameters
    if name != "self"
]
TOP = ["seed_everything", "run_dir", "artifact_dir", "data_dir", "model_revision", "data_revision", "template_date"]
TRAINER = ["trainer.max_epochs", "trainer.precision", "trainer.strategy", "trainer.max_time", "trainer.devices"]
names = st.sampled_from([*NAMES, *TOP, *TRAINER])


@cases(1000)
@given(st.sampled_from(NAMES), option_values)
def test_what_an_option_may_be(name: str, value: Any) -> None:
    section, _, option = name.partition(".")
    before = copy.deepcopy(value)
    result_of(lambda: check_options(OWNERS[section], {option: value}, section))
    assert repr(value) == repr(before) and option in get_type_hints(OWNERS[section].__init__)


@pytest.fixture(scope="module")
def line() -> CommandLine:
    """The command line of `fit`, its parser made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CommandLine, "instantiate_classes", lambda self: None)
        patch.setattr(CommandLine, "_run_subcommand", lambda self, name: None)
        return CommandLine(["fit"])


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """A YAML file of options, some of them of no use, and some files that are none."""
    options: dict[str, Any] = {}
    for name in draw(st.lists(st.one_of(names, names, texts), max_size=4)):
        section, dot, option = name.partition(".")
        value = draw(option_values)
        if dot:
            options.setdefault(section, {})
            if isinstance(options[section], dict):
                options[section][option] = value
        else:
            options[name] = value
    try:
        text = yaml.safe_dump(options, allow_unicode=draw(st.booleans()))
    except (yaml.YAMLError, ValueError):  # what cannot be written
        text = ""
    data = text.encode("utf-8", "surrogatepass")
    return draw(damaged(data)) if draw(st.integers(0, 3)) == 0 else data


@cases(1000)
@given(documents())
def test_yaml_files(tmp_path_factory: pytest.TempPathFactory, line: CommandLine, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "options.yaml"
    path.write_bytes(data)
    known = file_options(options_of(line._subcommand_parsers["fit"]))
    found = result_of(lambda: read_config(str(path), known, FOLLOWS, "fit"))
    assert found is None or all(1 <= number <= data.count(b"\n") + 1 for number in found.lines.values())


@cases(150)
@given(st.lists(st.tuples(names, option_values), min_size=1, max_size=2))
def test_command_lines_through_the_parser(line: CommandLine, typed: list[tuple[str, Any]]) -> None:
    words = [f"--{name}={value if isinstance(value, str) else yaml_of(value)}" for name, value in typed]
    parsed(line, words)


def yaml_of(value: Any) -> str:
    """A value as it is typed."""
    try:
        return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
    except (yaml.YAMLError, ValueError):
        return str(value)[:100]


@cases(150)
@given(documents())
def test_files_through_the_parser(tmp_path_factory: pytest.TempPathFactory, line: CommandLine, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "parsed.yaml"
    path.write_bytes(data)
    parsed(line, ["--config", str(path)])


def parsed(line: CommandLine, words: list[str]) -> None:
    """Parse a command line as `main` does."""
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            result_of(lambda: line.parse_arguments(line.parser, ["fit", *words]))
    except SystemExit as error:
        assert error.code == 0, "help alone ends it"


@cases(300)
@given(st.lists(st.one_of(texts, names.map("--{}".format), st.sampled_from(WORDS_TYPED)), max_size=4))
def test_words_through_the_reader(line: CommandLine, words: list[str]) -> None:
    parsed(line, words)
