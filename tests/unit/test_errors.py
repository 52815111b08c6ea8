"""The error of a misspelt name helps out of it; every error has its row in the table of mistakes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from spd_lightning.errors import UserError, counted, unknown_name
from tests.conftest import LISTENER
from tests.mistakes import PACKAGE, ROOT, Listener, Site, is_test, read_table, renewed, sites, sites_of, words_of

COMMANDS = {"out", "form", "config", "run_dir", "deps", "force"}  # of commands and pip: no parameter is called so


def option_without_parameter(message: str) -> list[str]:
    """Options that a message names before their parameter, and parameters named by their section."""
    found = []
    for option in re.finditer(r"--(?:no-)?(?:[a-z]+\.)?([a-z_]+)", message):
        before, name = message[: option.start()], option[1]
        if name not in COMMANDS and "{}" not in before.split(" ")[0] and not re.search(rf"(?<![\w.-]){name}\b", before):
            found.append(option[0])
    return found + re.findall(r"(?<![-\w./])(?:subspace|data|model|evaluation)\.[a-z_]+=", message)


def messages_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every text that names an option, with its line: errors, what becomes one, warnings and what a stage says.

    Left out are docstrings, a name alone (an argument of `unknown_name`) and what ends a message that begins elsewhere.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "UserError":
            yield node.lineno, " ".join(words_of(arg) for arg in node.args)
        elif isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            text = words_of(node)
            whole = text != text.split(" ")[0] and not text.startswith(("Set --", "Did you mean"))
            yield from [(node.lineno, text)] * whole
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            yield from messages_of(node)


CORE = sorted(p for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file())


@pytest.mark.parametrize("room", [p.stem for p in CORE if p.stem not in ("cli", "pipeline")])
def test_the_core_names_a_parameter_before_its_option(room: str) -> None:
    """A notebook knows ``temperature``; ``--data.temperature`` is what the command line types."""
    wrong = []
    paths = [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").is_file() else sorted((PACKAGE / room).rglob("*.py"))
    for path in (p for p in paths if p.parent.name != "sandbox"):  # which types options of bwrap
        for line, text in messages_of(ast.parse(path.read_text(encoding="utf-8"))):
            wrong += [f"{path.name}:{line} {option}" for option in option_without_parameter(text)]
    assert wrong == []


@pytest.mark.parametrize(
    "code",
    [
        "raise UserError('Raise --data.num_prompts.')",
        "problems.append('There are too few. Raise --data.num_prompts.')",
        "log.warning('too few prompts: raise --data.num_prompts')",
        "ADVICE = 'Raise --data.num_prompts.'",
    ],
)
def test_messages_are_found_wherever_they_are_written(code: str) -> None:
    found = [text for _, text in messages_of(ast.parse(f'"""--data.num_prompts is told."""\n{code}'))]
    assert [option for text in found for option in option_without_parameter(text)] == ["--data.num_prompts"]


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ("rank=9 exceeds kv_dim=4. Set --subspace.rank to at most 4.", []),
        ("The corpus is empty. Raise num_prompts (--data.num_prompts).", []),
        ("The corpus is empty. Raise --data.num_prompts.", ["--data.num_prompts"]),
        ("data.method=sdp is not known.", ["data.method="]),
        ("model.max_length=4: raise --data.max_length", ["--data.max_length", "model.max_length="]),
    ],
)
def test_the_rule_can_fail(message: str, wrong: list[str]) -> None:
    assert option_without_parameter(message) == wrong


def test_the_nearest_name_is_suggested() -> None:
    error = unknown_name("task", "gms8k", ["mmlu", "gsm8k"], "--evaluation.tasks")
    assert isinstance(error, UserError)
    assert str(error) == "Unknown task 'gms8k'. Did you mean 'gsm8k'? Known: gsm8k, mmlu. Set --evaluation.tasks."


def test_nothing_is_suggested_where_nothing_is_near() -> None:
    text = str(unknown_name("method", "xyz", ("spd", "base"), "--data.method"))
    assert text == "Unknown method 'xyz'. Known: base, spd. Set --data.method."


# -- the table of mistakes -----------------------------------------------------------------------------------------

FILES = sorted({site.file for site in sites()})


@pytest.mark.parametrize("file", FILES)
def test_every_error_has_its_row(file: str) -> None:
    """A test that provokes it, or a reason why none does; `rows_of_the_table_are_true` proves the tests."""
    there, rows = {site.text for site in sites_of(file)}, read_table().get(file, {})
    assert there - set(rows) == set(), "no row: `python -m tests.mistakes` says how to add one"
    assert set(rows) - there == set(), "these are gone: `python -m tests.mistakes` takes them out"


def test_the_table_has_no_other_files() -> None:
    assert set(read_table()) <= set(FILES)


def test_rows_name_tests_that_are_there_or_reasons() -> None:
    for file, rows in read_table().items():
        for text, entry in rows.items():
            if is_test(entry):
                path, _, name = entry.partition("::")
                assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text(encoding="utf-8"), (file, text)
            else:
                assert len(entry.split()) >= 4, f"{file}: {text}: a reason in words, or the id of a test: {entry!r}"


def test_an_error_is_heard_where_it_is_made() -> None:
    listener = Listener()
    listener.start()
    try:
        from spd_lightning.tasks import load_task

        with pytest.raises(UserError):
            load_task("gms8k")
        heard = listener.heard()
    finally:
        LISTENER.start()
    assert ("tasks/__init__.py", "unknown_name('task', name, TASKS, option)") in heard
    assert listener.heard() == set(), "each is heard once"


def test_a_row_goes_with_its_error_and_units_come_first() -> None:
    site: Site = next(s for s in sites() if s.file == "errors.py")
    noted = [(site.file, site.text, test) for test in ("tests/integration/a.py::b", "tests/unit/test_errors.py::c")]
    table, missing = renewed({"gone.py": {"x": "y"}}, noted)
    assert table == {site.file: {site.text: "tests/unit/test_errors.py::c"}} and len(missing) == len(sites()) - 1


def test_one_is_not_told_in_the_plural() -> None:
    assert [counted(n, "more row") for n in (0, 1, 1200)] == ["0 more rows", "1 more row", "1,200 more rows"]
