"""The house: which folder may import which, who may know Lightning, how long a file is, where its tests stand.

Read from the sources alone, with `ast`; nothing is imported. A rule that stands in the way is changed here, in the
same commit and with the reason, or not at all.
"""

from __future__ import annotations

import ast
import functools
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "spd_lightning"

# A room may import what stands on a later floor. Rooms of one floor do not know each other.
FLOORS = (
    ("cli",),
    ("pipeline", "sweep"),
    ("report", "cost"),
    ("evaluation",),
    ("finetuning",),
    ("generation",),
    ("scoring", "subspace"),
    ("tasks", "model"),
    ("artifacts", "health", "hub", "shipped"),
    ("options",),
    ("processes", "errors", "seeds", "progress", "notebook"),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# The shells: what Lightning calls, and what calls Lightning.
SHELL_NAMES = ("module.py", "datamodule.py", "callback.py")
SHELL_FILES = ("finetuning/strategy.py",)
SHELL_ROOMS = ("pipeline", "cli")

FRONT_DOOR = "__init__.py"  # the package's own: for who uses it, not for the rooms, which name the file they mean
OUTSIDE = ("experiments", "tests")  # what is built on the package
UNKNOWN = "?"

# What must go, as the rules below word it. Empty is the goal.
EXCEPTIONS: tuple[str, ...] = ()

MOST_LINES = 310
LONG = {
    "scoring/sandbox/plain.py": "both sides of the pipe read one grammar, which stands in one file",
}

# Names that libraries keep to themselves: file to library, names, and the test that fails where one is no longer it.
PRIVATE = {
    "cli/help.py": ("Python", ("_actions",), "unit/cli/test_option_table.py"),
    "cli/parser.py": ("jsonargparse", ("_parse_ckpt_path", "_typehint"), "unit/cli/test_option_table.py"),
    "cli/program.py": ("Lightning", ("_run_subcommand",), "unit/cli/test_parser.py"),
    "cli/start.py": ("Python", ("_run_exitfuncs",), "unit/cli/test_lifetime.py"),
    "evaluation/metrics.py": ("evaluate", ("_compute", "_info"), "unit/evaluation/test_metrics.py"),
    "model/anatomy.py": ("accelerate", ("_attn_implementation", "_hf_hook"), "unit/model/test_device_map.py"),
    "model/kinds.py": ("transformers", ("_model_mapping",), "zoo/damaged/test_damaged.py"),
    "model/packed_linear.py": (
        "torch",
        ("_is_mkldnn_bf16_supported", "_linear_pointwise", "_reorder_linear_weight"),
        "unit/model/test_packed_linear.py",
    ),
    "model/special_tokens.py": ("transformers", ("_tokenizer",), "unit/model/test_special_tokens.py"),
    "pipeline/lightning_names.py": (
        "Lightning",
        ("_MultiProcessingLauncher", "_signal_connector", "_sigterm_notifier_fn", "_timeout"),
        "unit/pipeline/test_lightning_names.py",
    ),
    "pipeline/run_log.py": ("Lightning", ("_check_log_dir_exists",), "unit/pipeline/test_run_log.py"),
    "scoring/isolation.py": ("Python", ("_base_executable",), "unit/scoring/test_execution.py"),
    "subspace/layout_check.py": ("transformers", ("_attn_implementation",), "unit/subspace/test_layout_check.py"),
}

# Modules whose tests stand in a file of another name, under tests/.
TESTED_IN = {
    "artifacts/locks.py": "unit/artifacts/test_files.py",
    "artifacts/manifest.py": "integration/test_corruptions.py",
    "cli/checks.py": "integration/test_corruptions.py",
    "cli/commands.py": "integration/test_cli_fit.py",
    "cli/messages.py": "unit/cli/test_mistakes.py",
    "cli/run_config.py": "unit/cli/test_sample.py",
    "cli/program.py": "integration/test_cli_errors.py",
    "cli/stage_parser.py": "unit/cli/test_parser.py",
    "cost/formulas.py": "unit/cost/test_estimate.py",
    "cost/machine.py": "unit/cost/test_estimate.py",
    "cost/shape.py": "unit/cost/test_estimate.py",
    "evaluation/comparisons.py": "unit/evaluation/test_benchmark.py",
    "evaluation/context.py": "unit/evaluation/test_suite.py",
    "evaluation/continuations.py": "unit/evaluation/test_likelihood.py",
    "evaluation/distributions.py": "unit/evaluation/test_statistics.py",
    "evaluation/execution.py": "unit/scoring/test_execution.py",  # the promised address of what is tested there
    "evaluation/evaluate.py": "unit/evaluation/test_benchmark.py",
    "evaluation/keys.py": "unit/evaluation/test_benchmark.py",
    "evaluation/progress.py": "integration/test_cli_fit.py",
    "evaluation/scores.py": "unit/evaluation/test_benchmark.py",
    "finetuning/checkpoint_file.py": "unit/pipeline/test_whole_checkpoint.py",
    "finetuning/export.py": "unit/finetuning/test_student.py",
    "finetuning/export_folder.py": "unit/finetuning/test_student.py",
    "evaluation/health.py": "unit/test_health.py",
    "finetuning/health.py": "unit/test_health.py",
    "finetuning/lora.py": "unit/finetuning/test_student.py",
    "finetuning/loss.py": "unit/finetuning/test_module.py",
    "finetuning/sharding.py": "integration/test_fsdp.py",  # needs processes
    "finetuning/share_kept.py": "unit/model/test_adapter_beside.py",
    "finetuning/strategy.py": "integration/test_fsdp.py",  # needs processes
    "finetuning/texts.py": "unit/finetuning/test_student_key.py",
    "finetuning/training_set.py": "unit/finetuning/test_keep.py",
    "finetuning/trained_model.py": "unit/finetuning/test_recomputing.py",
    "generation/cache.py": "unit/generation/test_engine.py",
    "generation/figures.py": "unit/generation/test_corpus.py",
    "generation/health.py": "unit/test_health.py",
    "generation/module.py": "unit/finetuning/test_datamodule.py",
    "generation/noise.py": "unit/generation/test_sampling.py",
    "generation/questions.py": "unit/finetuning/test_datamodule.py",
    "model/anatomy.py": "unit/model/test_device_map.py",
    "model/damage.py": "zoo/damaged/test_damaged.py",
    "model/kinds.py": "zoo/damaged/test_damaged.py",
    "model/source.py": "unit/model/test_checkpoint_files.py",
    "model/text_part.py": "zoo/test_differing_layers.py",
    "pipeline/estimate.py": "integration/test_estimate.py",
    "pipeline/bars.py": "unit/test_progress.py",
    "pipeline/children.py": "unit/cli/test_lifetime.py",
    "pipeline/chatter.py": "unit/test_progress.py",
    "pipeline/fit.py": "integration/test_cli_fit.py",
    "pipeline/formats.py": "integration/test_prompt_format.py",
    "pipeline/interruption.py": "unit/cli/test_lifetime.py",
    "pipeline/parts.py": "integration/test_cli_fit.py",
    "pipeline/resume.py": "integration/test_student_key.py",
    "report/notices.py": "unit/report/test_answer.py",
    "report/page.py": "unit/report/test_report.py",
    "report/passes.py": "unit/report/test_report.py",
    "report/sheet.py": "unit/report/test_svg.py",
    "report/examples.py": "unit/report/test_explorer.py",
    "report/figures.py": "unit/report/test_report.py",
    "report/fonts.py": "unit/report/test_plots.py",
    "report/single.py": "unit/report/test_report.py",
    "report/unfinished.py": "unit/report/test_exports.py",
    "report/verdict.py": "unit/report/test_answer.py",
    "report/render.py": "unit/report/test_report.py",
    "report/runs.py": "unit/report/test_report.py",
    "report/schema.py": "unit/pipeline/test_agreement.py",
    "report/several.py": "unit/report/test_report.py",
    "report/sweeps.py": "unit/report/test_report.py",
    "scoring/answers_code.py": "unit/scoring/test_answers.py",  # one grammar, asked through `answers`
    "scoring/answers_conclusion.py": "unit/scoring/test_answers.py",
    "scoring/answers_cut.py": "unit/scoring/test_answers.py",
    "scoring/answers_letters.py": "unit/scoring/test_answers.py",
    "scoring/answers_numbers.py": "unit/scoring/test_answers.py",
    "scoring/isolation.py": "unit/scoring/test_execution.py",
    "subspace/calibration.py": "unit/subspace/test_module.py",
    "subspace/kept.py": "integration/test_several_tasks.py",
    "subspace/pairs.py": "unit/subspace/test_module.py",
    "subspace/layouts.py": "unit/subspace/test_layout_check.py",
    "sweep/grid.py": "integration/test_sweep.py",
    "sweep/runner.py": "integration/test_sweep.py",
    "tasks/arithmetic.py": "unit/tasks/test_synthetic.py",
    "tasks/chains.py": "unit/tasks/test_synthetic.py",
    "tasks/coding.py": "unit/tasks/test_tasks.py",
    "tasks/functions.py": "unit/tasks/test_synthetic.py",
    "tasks/letters.py": "unit/tasks/test_synthetic.py",
    "tasks/math_word.py": "unit/tasks/test_tasks.py",
    "tasks/multiple_choice.py": "unit/tasks/test_tasks.py",
    "tasks/task.py": "unit/tasks/test_tasks.py",
}


def files(package: Path) -> list[str]:
    """Every file that has a room, relative to the package: not its front doors, and not the sandbox's world apart."""
    found = sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))
    return [name for name in found if name not in ("__init__.py", "__main__.py") and "/sandbox/" not in name]


def room(name: str) -> str:
    return name.split("/")[0].removesuffix(".py")


def imported(source: Path, name: str, types: bool = True) -> Iterator[str]:
    """Dotted names that a file imports, at its top, in functions and by `importlib`; ``from a import b`` is a.b.

    A name that is made as the program runs is `UNKNOWN`, but for one that begins with the file's own. ``types``: also
    what stands under ``if TYPE_CHECKING``.
    """
    yield from _imported(source.read_text(encoding="utf-8"), name, types)


@functools.cache  # the tests look through copies that differ in one file
def _imported(source: str, name: str, types: bool) -> list[str]:
    return list(_imports(ast.parse(source), name, types))


def _imports(tree: ast.AST, name: str, types: bool) -> Iterator[str]:
    for node in _nodes(tree, types):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*_package(name, node.level), *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            asked = node.args[0] if node.args else node
            if isinstance(asked, ast.Constant) and isinstance(asked.value, str):
                dots = len(asked.value) - len(asked.value.lstrip("."))
                yield ".".join([*_package(name, dots), asked.value[dots:]])
            elif not ast.unparse(asked).startswith("f'{__name__}."):
                yield UNKNOWN


def _nodes(tree: ast.AST, types: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING") and not types:
            yield from (found for other in node.orelse for found in (other, *_nodes(other, types)))
        else:
            yield from (node, *_nodes(node, types))


def _package(name: str, dots: int) -> list[str]:
    """The parts of what so many dots stand for in a file."""
    return [PACKAGE, *name.split("/")][:-dots] if dots else []


def inside(package: Path, name: str, types: bool = True) -> set[str]:
    """The package's files that a file imports; of a name that the front door alone gives, the front door."""
    found = set()
    for dotted in imported(package / name, name, types):
        first, *parts = dotted.split(".")
        paths = ("/".join(parts[:end]) for end in range(len(parts), 0, -1))
        hits = (p for path in paths for p in (f"{path}.py", f"{path}/__init__.py") if (package / p).is_file())
        if first == PACKAGE and parts != ["__version__"]:
            found.add(next(hits, FRONT_DOOR))
    return found - {name}


def against_the_order(package: Path) -> list[str]:
    """Imports that run back or across, out of the house or unseen, rooms that no floor names, and circles of files."""
    wrong = [f"{name} has no floor" for name in files(package) if room(name) not in FLOOR]
    graph = {name: inside(package, name) for name in files(package)}
    for name, others in graph.items():
        for other in sorted(others):
            here, there = room(name), room(other)
            back = here != there and here in FLOOR and there in FLOOR and FLOOR[there] <= FLOOR[here]
            if back or other == FRONT_DOOR:
                wrong.append(f"{name} imports {other}")
        tops = {dotted.split(".")[0] for dotted in imported(package / name, name)}
        wrong += [f"{name} imports {top}" for top in sorted(tops & {*OUTSIDE, UNKNOWN})]
    reached = {name: _reached(graph, name) for name in graph}
    circles = [(name, other) for name, others in graph.items() for other in others if name in reached.get(other, ())]
    return wrong + [f"{name} imports {other} in a circle" for name, other in sorted(circles)]


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    """What a file imports, directly or through others."""
    found: set[str] = set()
    ahead = {start}
    while ahead:
        found |= ahead
        ahead = {other for name in ahead for other in graph.get(name, ())} - found
    return found


def is_shell(name: str) -> bool:
    return name.rpartition("/")[2] in SHELL_NAMES or name in SHELL_FILES or room(name) in SHELL_ROOMS


def knows_lightning(package: Path) -> list[str]:
    """Files of the core that import Lightning, or a shell of it but for its type."""
    wrong = []
    for name in (n for n in files(package) if not is_shell(n)):
        tops = {dotted.split(".")[0] for dotted in imported(package / name, name)}
        if tops & {"lightning", "pytorch_lightning", "lightning_fabric"}:
            wrong.append(f"{name} imports lightning")
        shells = filter(is_shell, inside(package, name, types=False))
        wrong += [f"{name} imports {shell}, a shell of lightning" for shell in sorted(shells)]
    return wrong


def knows_the_package(package: Path) -> list[str]:
    """Files of the sandbox that import more than Python's own modules and each other: nothing else is there."""
    found = sorted((package / "scoring" / "sandbox").rglob("*.py"))
    there = {*sys.stdlib_module_names, *(path.stem for path in found), UNKNOWN}  # what a program's tests ask for
    names = ((path, path.relative_to(package).as_posix()) for path in found)
    tops = {name: {dotted.split(".")[0] for dotted in imported(path, name)} for path, name in names}
    return [f"{name} imports {top}" for name in tops for top in sorted(tops[name] - there)]


def too_long(package: Path) -> list[str]:
    names = sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))
    lines = {name: len((package / name).read_text(encoding="utf-8").splitlines()) for name in names}
    return [f"{name} has {count} lines" for name, count in lines.items() if count > MOST_LINES and name not in LONG]


def private_names(package: Path) -> dict[str, set[str]]:
    """By file, the names with an underscore that are a library's: taken from one, or methods that only one calls."""
    trees = {name: ast.parse((package / name).read_text(encoding="utf-8")) for name in files(package)}
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    ours = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    ours |= {node.attr for node in attributes if isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"}
    ours |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    ours |= {"_exit"}  # of `os`, where it is documented
    called = {node.attr for node in attributes}
    found = {
        name: {n for n in _taken(tree) - ours | _methods(tree) - called if _is_private(n)}
        for name, tree in trees.items()
    }
    return {name: names for name, names in found.items() if names}


def _taken(tree: ast.AST) -> set[str]:
    """Attributes of anything but oneself, what is imported, and what is asked for by its text."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr"):
            found |= {str(asked.value) for asked in node.args[1:2] if isinstance(asked, ast.Constant)}
    return found


def _methods(tree: ast.AST) -> set[str]:
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return {part.name for node in classes for part in node.body if isinstance(part, ast.FunctionDef)}


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("_")


def versions() -> dict[str, str]:
    """What is tested, by the name that a line in the package has for it."""
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split())
    return {**pinned, "Lightning": pinned["lightning"], "Python": f"{sys.version_info.major}.{sys.version_info.minor}"}


def test_private_names_of_libraries_are_few_and_each_tells_the_version_that_was_tested() -> None:
    """One more, or another version: look whether there is a public way now, and whether the name means the same."""
    package = ROOT / PACKAGE
    assert private_names(package) == {file: set(names) for file, (_, names, _) in PRIVATE.items()}
    silent = []
    for file, (library, _, test) in PRIVATE.items():
        said = re.compile(rf"{library}\W{{1,2}}{re.escape(versions()[library])}\b")
        silent += [] if said.search((package / file).read_text(encoding="utf-8")) else [f"{file}: {said.pattern}"]
        assert (ROOT / "tests" / test).is_file(), test
    assert silent == []


def test_what_is_installed_for_a_test_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["completion"], *extras["test"]]
    names = [re.split(r"[^\w.-]", requirement)[0] for requirement in asked]
    pinned = {re.sub(r"[-_.]+", "-", name).lower() for name in versions()}
    assert [name for name in names if re.sub(r"[-_.]+", "-", name).lower() not in pinned] == []


def test_a_private_name_of_a_library_is_found(tmp_path: Path) -> None:
    package = tmp_path / PACKAGE
    shutil.copytree(ROOT / PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    lines = ("parser._groups", "from torch import _C", "getattr(model, '_tied', None)", "model._own()", "os._exit(0)")
    with (package / "errors.py").open("a", encoding="utf-8") as copy:
        copy.write(
            "\n".join(("", *lines, "class Own(Base):", "    def _hook(self): ...", "    def _own(self): ...", ""))
        )
    assert private_names(package)["errors.py"] == {"_groups", "_C", "_tied", "_hook"}


RULES = (against_the_order, knows_lightning, knows_the_package, too_long)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_is_in_order(rule) -> None:  # type: ignore[no-untyped-def]
    assert [line for line in rule(ROOT / PACKAGE) if line not in EXCEPTIONS] == []


@pytest.mark.parametrize(
    ("file", "line", "rule"),
    [
        ("scoring/answers.py", "from spd_lightning.evaluation.metrics import share", against_the_order),
        ("scoring/answers.py", "from spd_lightning.subspace import sites", against_the_order),  # of the same floor
        ("tasks/task.py", "import spd_lightning.model.load", against_the_order),
        ("subspace/moments.py", "from ..generation.sampling import sample", against_the_order),
        ("errors.py", "def lazy():\n    from spd_lightning.artifacts.files import file_sha256", against_the_order),
        ("tasks/task.py", "from spd_lightning.tasks import load_task", against_the_order),  # a circle in one room
        ("hall.py", "", against_the_order),
        (
            "scoring/answers.py",
            "if TYPE_CHECKING:\n    from spd_lightning.pipeline.fit import Parts",
            against_the_order,
        ),
        ("scoring/answers.py", "from spd_lightning import SubspaceExtractionModule", against_the_order),
        ("scoring/answers.py", "def lazy():\n    import spd_lightning", against_the_order),
        ("scoring/answers.py", "importlib.import_module('spd_lightning.cli.parser')", against_the_order),
        ("scoring/answers.py", "import_module('..cli.parser', __package__)", against_the_order),
        ("scoring/answers.py", "__import__('spd_lightning.cli.parser')", against_the_order),
        ("scoring/answers.py", "importlib.import_module(name)", against_the_order),
        ("subspace/sites.py", "from spd_lightning.subspace import project_kv", against_the_order),  # by its own door
        ("scoring/answers.py", "from experiments.study import Study", against_the_order),
        ("scoring/answers.py", "from tests import conftest", against_the_order),
        ("subspace/projection.py", "from lightning.pytorch import Trainer", knows_lightning),
        ("scoring/answers.py", "def lazy():\n    import lightning.pytorch as pl", knows_lightning),
        ("scoring/answers.py", "importlib.import_module('lightning.pytorch')", knows_lightning),
        ("subspace/choice.py", "from spd_lightning.subspace.module import SubspaceExtractionModule", knows_lightning),
        ("cost/shape.py", "def lazy():\n    from spd_lightning.finetuning import strategy", knows_lightning),
        ("scoring/sandbox/kernel.py", "from spd_lightning.errors import UserError", knows_the_package),
        ("scoring/sandbox/kernel.py", "from ...errors import UserError", knows_the_package),
        ("scoring/sandbox/kernel.py", "def lazy():\n    import numpy", knows_the_package),
        ("errors.py", "\n" * MOST_LINES, too_long),
    ],
)
def test_what_breaks_a_rule_is_found(file: str, line: str, rule, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The rules can fail: one line more in a copy of the package, and they do."""
    package = tmp_path / PACKAGE
    shutil.copytree(ROOT / PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    before = rule(package)
    with (package / file).open("a", encoding="utf-8") as copy:
        copy.write(f"\n{line}\n")
    found = set(rule(package)) - set(before)
    assert any(line.startswith(f"{file} ") for line in found), found


def test_every_module_has_its_tests() -> None:
    """``tests/unit/<room>/test_<module>.py``, or the file that TESTED_IN names: a unit test knows something of it."""
    lacking = []
    for name in files(ROOT / PACKAGE):
        if name.endswith("__init__.py"):
            continue
        folder, _, file = name.rpartition("/")
        own = Path("unit", folder, f"test_{file}")
        path = ROOT / "tests" / (TESTED_IN.get(name) or own)
        if not path.is_file():
            lacking.append(f"{name} has no test")
        elif TESTED_IN.get(name, "").startswith("unit/") and not _names(ROOT / PACKAGE / name) & _words(path):
            lacking.append(f"{name} is not known to {path.name}")
    assert lacking == []


def _names(path: Path) -> set[str]:
    """The module's name and what it defines at its top."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    return {path.stem} | defined | {target.id for target in targets if isinstance(target, ast.Name)}


def _words(path: Path) -> set[str]:
    return set(re.findall(r"\w+", path.read_text(encoding="utf-8")))


def test_no_exception_outlives_its_reason() -> None:
    """What the lists above allow is still there; what is not, is taken out of them."""
    package = ROOT / PACKAGE
    broken = [line for rule in RULES for line in rule(package)]
    assert [line for line in EXCEPTIONS if line not in broken] == []
    assert [n for n in LONG if len((package / n).read_text(encoding="utf-8").splitlines()) <= MOST_LINES] == []
    own = [n for n in TESTED_IN if (ROOT / "tests" / "unit" / n).with_name(f"test_{Path(n).name}").is_file()]
    assert own == []
    assert [n for n in TESTED_IN if not (package / n).is_file()] == []
