"""What of a program and its tests runs where: decided by the text of prompt and tests alone, before anything runs.

The tests run in one process and what the model wrote in another (``sandbox/``), so that a comparison sees plain values
and nothing of the program. The two share one process only where the tests name a class that neither prompt nor tests
define: then its instances must be the program's own.
"""

from __future__ import annotations

import ast
import builtins
import symtable
import sys
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class ProgramParts:
    """A program and its tests, taken apart.

    Attributes:
        definitions: Source of what the prompt defines before the function that is asked for; it runs on both sides.
        tests: Source of the tests.
        names: What the tests take from the program.
        modules: Modules of the standard library that the tests use without importing them.
        classes: Classes that both sides define; their instances cross by their fields.
        test_classes: Source of those among them that the tests define.
        shared: Whether tests and program must share a process.
    """

    definitions: str
    tests: str
    names: tuple[str, ...]
    modules: tuple[str, ...]
    classes: tuple[str, ...]
    test_classes: str
    shared: bool


NO_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)  # the latter two for what is nested too deep


def split(prefix: str, tests: str, continues: bool = False) -> ProgramParts:
    """Take a program apart.

    Args:
        prefix: Code before the completion.
        tests: Code after it: set-up and tests.
        continues: Whether the completion goes on in the middle of the prefix's last function.

    >>> split("", "assert f([1]) == sys.maxsize").names
    ('f',)
    >>> split("", "assert depth(Node(1)) == 1").shared
    True
    """
    definitions = _definitions(prefix, continues)
    try:
        tree = ast.parse(tests)
        free = _free(tests)
    except NO_PYTHON:  # then they fail everywhere
        return ProgramParts("", tests, (), (), (), "", False)
    own = _bound(definitions)
    modules = {name for name in free - own if name in sys.stdlib_module_names and _only_holds(tree, name)}
    names = free - own - modules - set(dir(builtins))
    if not names:  # a solution may have a builtin's name
        names = (free - own) & _called(tree)
    test_classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    classes = {node.name for node in [*ast.parse(definitions).body, *test_classes] if isinstance(node, ast.ClassDef)}
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    source = "\n".join(ast.unparse(node) for node in (*imports, *test_classes)) if test_classes else ""
    return ProgramParts(
        definitions=definitions,
        tests=tests,
        names=tuple(sorted(names)),
        modules=tuple(sorted(modules)),
        classes=tuple(sorted(classes)),
        test_classes=source,
        shared=any(_is_class(tree, name, names) for name in names),
    )


def _definitions(prefix: str, continues: bool) -> str:
    """What a prefix defines by itself: all of it, without the function that the completion continues."""
    lines = prefix.splitlines()
    body: list[ast.stmt] = []
    for last in range(len(lines), 0, -1):
        text = "\n".join(lines[:last])
        for ending in ("", "\n    pass") if last == len(lines) else ("",):
            try:
                body = ast.parse(text + ending).body
                if continues and body and last == len(lines) and isinstance(body[-1], (ast.FunctionDef, ast.ClassDef)):
                    body = body[:-1]
                return "\n".join(ast.unparse(node) for node in body)
            except NO_PYTHON:
                continue
    return ""


def _bound(source: str) -> set[str]:
    """The names that a source binds at its top."""
    if not source:
        return set()
    symbols = symtable.symtable(source, "<definitions>", "exec").get_symbols()
    return {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}


def _free(source: str) -> set[str]:
    """The names that a source takes from outside."""
    table = symtable.symtable(source, "<tests>", "exec")
    bound = {s.get_name() for t in _tables(table) for s in t.get_symbols() if s.is_declared_global()} | _bound(source)
    used = {
        s.get_name()
        for t in _tables(table)
        for s in t.get_symbols()
        if s.is_referenced() and (s.is_global() or t is table)
    }
    return used - bound - {"__name__", "__file__"}


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)


def _called(tree: ast.AST) -> set[str]:
    """Names that are called."""
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {called.id for called in calls if isinstance(called, ast.Name)}


def _only_holds(tree: ast.AST, name: str) -> bool:
    """Whether a name is only ever used as ``name.attribute``, as modules are."""
    held = sum(isinstance(n, ast.Attribute) and _mentions([n.value], name, deep=False) for n in ast.walk(tree))
    return held == sum(isinstance(n, ast.Name) and n.id == name for n in ast.walk(tree))


def _is_class(tree: ast.AST, name: str, names: set[str]) -> bool:
    """Whether tests use a name as a class.

    They do where it stands in ``isinstance``, ``except`` or as a base; where attributes of it, or set on what its call
    gives, are written out; and, for a name written as classes are (``Node``; not ``Find_Max``), where attributes of
    what its call gives are read, or other functions of the program are called besides.
    """
    made = set()  # variables that hold what its call gave
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and _calls(node.value, name):
            made |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    looks = name[0].isupper() and "_" not in name and name in _called(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == name:
                return True
            of_made = _calls(node.value, name) or (isinstance(node.value, ast.Name) and node.value.id in made)
            if of_made and (looks or isinstance(node.ctx, ast.Store)):
                return True
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("isinstance", "issubclass") and _mentions(node.args[1:], name):
                return True
            if looks and node.func.id in names - {name}:
                return True
        elif isinstance(node, ast.ExceptHandler | ast.ClassDef):
            parents = node.bases if isinstance(node, ast.ClassDef) else [node.type] if node.type else []
            if _mentions(parents, name):
                return True
    return False


def _calls(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _mentions(nodes: list[ast.expr], name: str, deep: bool = True) -> bool:
    found = [below for node in nodes for below in (ast.walk(node) if deep else [node])]
    return any(isinstance(node, ast.Name) and node.id == name for node in found)
