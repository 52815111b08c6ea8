"""The program of a completion, as a careful person would copy it out, and whether it is Python.

Fenced blocks: Python before untagged ones, and never one that is tagged as something else while such a block is there;
a block that defines something before one that only calls it or shows what it prints. Blocks that define different
things belong together; of two that define the same, the first counts, unless the text between them takes it back or
announces the whole. Fences may be longer than three characters, made of tildes, indented in a list or quoted, with
anything behind the language and anything behind the end.

Without a fence all of the text is the program; where that is no Python, the part of it that is, if only prose stands
around it.
"""

from __future__ import annotations

import ast
import itertools
import re
import warnings
from dataclasses import dataclass

from spd_lightning.scoring.answers_cut import own_turn, without_thinking

_PYTHON = ("py", "python", "ipython", "pyi", "gpython", "cpython")
_PLAIN = ("", "code", "solution", "answer")
_LANGUAGE = re.compile(r"[{\s.]*(?:[\w/-]+\.(?P<suffix>py)\b|(?P<name>[A-Za-z][A-Za-z+#-]*)(?!=))?")
_OPENING = re.compile(
    r"(?P<margin>(?:[ \t]|> ?)*(?:(?:[-*+]|\d{1,2}[.)])[ \t]+)?)(?P<fence>`{3,}|~{3,})(?P<info>[^`\n]*)\r?\n?$"
    r"|(?:(?!```).)*\S[ \t]*(?P<late>`{3})(?P<lang>[ \t]*(?:python3?|py)?)[ \t]*\r?\n?$"
)
_ONE_LINE = re.compile(r"```(?:python3?|py)?[ \t]+([^`\n]+?)[ \t]*```(?!`)|(?<!`)`((?:def|class) [^`\n]+)`(?!`)")
_TAKEN_BACK = re.compile(
    r"\b(?:wait|oops|mistake|bug(?:gy)?|wrong|fix(?:ed|es)?|correct(?:ed|ion)?|incorrect|updated?|revised?|final|complete"
    r"|full|whole|together|instead|should be|actually|sorry)\b",
    re.IGNORECASE,
)
_BRACKETS = re.compile(r"^[ \t]*\[(?:PYTHON|BEGIN)\](.*?)(?:\[/PYTHON\]|\[DONE\]|\Z)", re.DOTALL | re.MULTILINE)
_TAGS = re.compile(
    r"<(?:code|pre)[^<>]*>(?:\s*<code[^<>]*>)?(.*?)(?:</(?:code|pre)>|\Z)",
    re.DOTALL,
)
_STARTS_CODE = re.compile(r"(?:(?:async\s+def|def|class|import)\b|from\s+[\w.]+\s+import|@(?=\w))")


@dataclass
class Block:
    """One fenced block.

    Attributes:
        language: ``python``, ``""`` where none is named, or the name in lower case.
        code: Its lines without the margin of the fence.
        start: Index of the first line of the block in the text, the fence.
        end: Index of the line behind it.
    """

    language: str
    code: str
    start: int
    end: int


def extract_code(completion: str) -> str:
    """The program text of a completion.

    An unclosed block goes to the end. A single fence without a language that follows Python closes the code that stands
    before it (the completion continued code, then began to explain).
    """
    if not _holds_code(completion):  # a program may name <think> in a text of its own
        completion = without_thinking(completion)
    for m in _BRACKETS.finditer(completion):  # before all else, since [BEGIN] is a list to Python
        code = m[1].strip("\r\n")
        quoted = re.fullmatch(r"\s*(['\"])(.*)\1\s*", code, re.DOTALL)
        code = quoted[2] if quoted and not _holds_code(code) else code
        if _holds_code(code):
            return f"{code}\n"
    completion = completion.split("\n[DONE]")[0]
    if _holds_code(completion):
        return completion
    text = own_turn(completion)
    lines = text.splitlines(keepends=True)
    blocks = fenced_blocks(lines)
    for block in blocks:
        if not _holds_code(block.code):
            mended = _typed(block.code) or _unfenced(block.code)  # a session; a block that was never closed
            block.code = mended if _defined(mended) else block.code
    if not blocks:
        inline = [f"{code}\n" for m in _ONE_LINE.finditer(text) if _holds_code(code := m[1] or m[2])]
        return inline[0] if inline else _unfenced(text)
    before = "".join(lines[: blocks[0].start])
    if blocks[0].language == "" and _holds_code(before):
        return before
    ours = [b for b in blocks if b.language == "python"]
    plain = [b for b in blocks if b.language == ""]
    defining = [b for b in ours if _defined(b.code)] or [b for b in plain if _defined(b.code)]
    if defining:
        return _joined(defining, lines)
    broken = [b for b in (*ours, *plain) if _STARTS_CODE.match(b.code.lstrip())]
    if broken:
        return broken[0].code
    if _defined(before):
        return before
    for group in (ours, plain):
        code = [b for b in group if _holds_code(b.code)] or group
        if code:
            return code[0].code
    nested = [b.code for b in blocks if b.language in ("markdown", "md") and fenced_blocks(b.code.splitlines(True))]
    return extract_code(nested[0]) if nested else blocks[0].code


def fenced_blocks(lines: list[str]) -> list[Block]:
    """The fenced blocks of a text, given as lines with their ends."""
    blocks: list[Block] = []
    opening: re.Match[str] | None = None
    start, body = 0, list[str]()
    for i, line in enumerate(lines):
        if opening is None:
            opening, start, body = _OPENING.match(line), i, []
            continue
        fence = opening["fence"] or opening["late"]
        ends = re.match(rf"[ \t>]*{re.escape(fence[0])}{{{len(fence)},}}(?!{re.escape(fence[0])})(.*)", line)
        again = ends and _language(ends[1]) in ("python",) and _OPENING.match(line)
        if ends and not again and _goes_on(body, lines[i:], fence):
            ends = None  # a fence within quotes
        glued = re.match(r"(.*\S)```[ \t]*\r?\n?$", line) if fence == "```" and not ends else None
        if glued and not _parses("".join(body) + glued[1]):
            glued = None
        if ends or glued:
            blocks.append(_block(opening, [*body, glued[1] + "\n"] if glued else body, start, i + 1))
            opening, start, body = (_OPENING.match(line), i, []) if again else (None, 0, [])
        else:
            body.append(line)
    if opening is not None:
        blocks.append(_block(opening, body, start, len(lines)))
    return blocks


def _goes_on(body: list[str], rest: list[str], fence: str) -> bool:
    """Whether a block is Python only if this fence is part of it and a later one its end."""
    if not re.search(r"\"\"\"|'''", "".join(body)) or parses("".join(body)):
        return False
    later = [i for i, line in enumerate(rest) if i and line.strip() == fence]
    return any(parses("".join([*body, *rest[:i]])) for i in later[:4])


def _block(opening: re.Match[str], body: list[str], start: int, end: int) -> Block:
    margin = opening["margin"] or ""
    if ">" in margin:
        body = [re.sub(r"^[ \t]*(?:> ?)+", "", line) for line in body]
    width = 0 if ">" in margin else len(margin)
    body = [re.sub(rf"^[ \t]{{0,{width}}}", "", line) for line in body] if width else body
    info = opening["info"] or ""
    glued = re.match(r"[ \t]*(?:python3?|py)?[ \t]+(.*)", info)  # code on the line of the fence
    if glued and _STARTS_CODE.match(glued[1]):
        body = [f"{glued[1]}\n", *body]
    return Block(_language(opening["info"] or opening["lang"] or ""), "".join(body), start, end)


def _language(info: str) -> str:
    """``python``, ``""`` for none, or another name: of ``python3.11``, ``{python}``, ``python:a.py``, ``title="a"``."""
    match = _LANGUAGE.match(info)
    name = "python" if match and match["suffix"] else (match["name"] or "" if match else "").lower().strip("-")
    return "python" if name in _PYTHON else "" if name in _PLAIN else name


def _joined(blocks: list[Block], lines: list[str]) -> str:
    """Blocks that belong together as one program."""
    chosen = [blocks[0]]
    for before, block in itertools.pairwise(blocks):
        names = _defined(block.code)
        same = [b for b in chosen if _defined(b.code) & names]
        between = "".join(lines[before.end : block.start])
        if same and _TAKEN_BACK.search(between):
            chosen = [b for b in chosen if b not in same] + [block]
        elif not same and _functions(block.code):
            chosen.append(block)
    return "\n".join(b.code for b in chosen) if len(chosen) > 1 else chosen[0].code


def _tree(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a model's string
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _statements(code: str) -> list[ast.stmt]:
    """The statements of a program that parses, one indented as a whole included; none of any other text."""
    for text in (code.strip(), f"if True:\n{code}"):
        tree = _tree(text)
        if tree and tree.body:
            inner = tree.body[0]
            return inner.body if text.startswith("if True:\n") and isinstance(inner, ast.If) else tree.body
    return []


def parses(code: str) -> bool:
    """Whether a text is Python of today's grammar; an empty one is not.

    Code that is indented as a whole counts (a function's body, a block in a list), and so does a stray first space.
    """
    # A block is read as one. Taking off the common margin would not do: a text in quotes or a comment may start at 0.
    return _parses(code.strip()) or _parses(f"if True:\n{code}")


def _parses(code: str) -> bool:
    tree = _tree(code)
    return tree is not None and bool(tree.body)


def _holds_code(text: str) -> bool:
    """Whether a text is a program and no word or phrase that happens to parse (``Solution``)."""
    return any(not isinstance(s, ast.Expr) or isinstance(s.value, ast.Call) for s in _statements(text))


def _functions(code: str) -> set[str]:
    """Names of the functions and classes that a program defines, tests aside."""
    body = _statements(code)
    named = {s.name for s in body if isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    tests = re.search(r"^\s*(?:import|from) (?:unittest|pytest)\b", code, re.MULTILINE)
    return set() if tests else {name for name in named if not name.startswith("test")}


def _defined(code: str) -> set[str]:
    """What a block is there for: its functions and classes; ``return`` for a body that returns."""
    body = _statements(code)
    return _functions(code) | (
        {"return"}
        if any(
            isinstance(n, ast.Return)
            for s in body
            if not isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            for n in ast.walk(s)
        )
        else set()
    )


def _typed(session: str) -> str:
    """What was typed in an interactive session (``>>>``), without what it printed."""
    return "".join(f"{m[1]}\n" for m in re.finditer(r"^[ \t]*(?:>>>|\.\.\.)(?: (.*))?$", session, re.MULTILINE) if m[1])


def _unfenced(text: str) -> str:
    """The program of a text without a fence: all of it, or the part that is Python between prose."""
    if parses(text):
        return text
    tagged = [m[1] for m in _TAGS.finditer(text) if _holds_code(m[1])]
    if tagged:
        return tagged[0]
    typed = _typed(text)
    if _holds_code(typed):
        return typed
    spaced = re.sub("[\u00a0\u202f\u3000]", " ", re.sub("[\u200b\ufeff]", "", text))
    if spaced != text:  # spaces that only look like spaces
        return _unfenced(spaced)
    lines = text.splitlines(keepends=True)[:400]
    first = next((i for i, line in enumerate(lines) if _STARTS_CODE.match(line)), None)
    if first is None:  # Markdown's other block, four spaces to the right
        first = next((i for i, line in enumerate(lines) if i and _STARTS_CODE.match(line.strip())), None)
        margin = "" if first is None else lines[first][: len(lines[first]) - len(lines[first].lstrip())]
        if margin:
            lines = [line.removeprefix(margin) for line in lines]
    starts = [0] if first in (0, None) or lines[0][:1].isspace() else [first, 0]
    for start in starts:
        for end in range(len(lines), start, -1):
            rest = next((line for line in lines[end:] if line.strip()), "")
            if end < len(lines) and not _is_prose(rest):
                continue
            code = "".join(lines[start:end])
            if _defined(code):
                return code
    return text


def _is_prose(line: str) -> bool:
    """Whether a line at the margin reads as words, not as code that broke off."""
    return bool(re.match(r"(?:[#>*\-\d.]+ +)?[*_`]*[A-Za-z][\w'’`*-]*[.,:!]?(?: [\w'’`*(\"-]+|\s*$)", line)) and not (
        _STARTS_CODE.match(line)
        or parses(line)
        or re.match(r"(?:if|for|while|with|try|elif|else|except|return)\b", line)
    )
