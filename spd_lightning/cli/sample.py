"""``sample``: prompts completed by the base, the projected base and the student of a run, side by side."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from spd_lightning.artifacts.reading import missing
from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.cli.checks import told_changes
from spd_lightning.cli.run_config import run_config
from spd_lightning.errors import UserError

Complete = Callable[[str], list[tuple[str, Any]]]


def sample(
    run_dir: str,
    *,
    prompt: str | None = None,
    prompts: str | None = None,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 42,
) -> None:
    """Complete prompts with the base, the projected base and the student of a run, side by side.

    Without a prompt each line that is typed is one, until an empty line or Ctrl-D; models are loaded once.

    Args:
        run_dir: Run folder.
        prompt: Text to complete. It is put as the run's training prompts were (data.prompt_format), behind their system
            prompt if they had one: plain text as it stands, or the user's turn of the chat template.
        prompts: File of prompts: JSON Lines whose rows have a prompt (.jsonl), or text with a prompt a line.
        max_new_tokens: Limit of each completion, tokens.
        temperature: 0 is greedy.
        seed: Seed of the sampling noise.
    """
    if prompt is not None and prompts is not None:
        raise UserError("--prompt and --prompts are both given. Leave one of them out.")
    asked = [_written(prompt)] if prompt is not None else None if prompts is None else read_prompts(Path(prompts))
    run = RunFolder(run_dir)
    config = run_config(run)
    told_changes(run)
    complete, said = _models(run, config, max_new_tokens, temperature, seed)
    print(said + "\n", flush=True)
    for text in _typed() if asked is None else asked:
        if asked is None or len(asked) > 1:
            print(f"=== {text}")
        for title, found in complete(text):
            print(f"--- {title} ({found.num_tokens} tokens, {found.finish_reason})\n{found.completion}\n", flush=True)


def read_prompts(file: Path) -> list[str]:
    """The prompts of a file: of JSON Lines the field ``prompt`` of each row, else each line that is not empty.

    Raises:
        UserError: If there is no such file, none in it, or a row has no prompt.
    """
    from spd_lightning.artifacts.files import numbered_jsonl

    if not file.is_file():
        raise UserError(f"prompts={file}: {missing(file)}. Set --prompts to one, or use --prompt TEXT.")
    if ".jsonl" in file.suffixes:
        found = []
        for number, row in numbered_jsonl(file, writable=True):
            if not isinstance(row.get("prompt"), str):
                raise UserError(f'{file}, line {number}: there is no text under prompt. Write {{"prompt": "..."}}.')
            found.append(row["prompt"])
    else:
        try:
            found = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise UserError(f"prompts={file} is no UTF-8 text ({error.reason}). Give text or JSON Lines.") from error
    if not found:
        raise UserError(f"prompts={file} holds no prompt. Write one a line.")
    return found


def _written(prompt: str) -> str:
    """A prompt that was typed, which a tokenizer takes.

    Raises:
        UserError: If it holds half a character, as what was typed in another encoding does.
    """
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"The prompt {prompt[:40]!r} holds half a character ({prompt[error.start]!r}). Type it in UTF-8."
        ) from error
    return prompt


def _typed() -> Iterator[str]:
    """Lines from standard input; a terminal is told what to do, and an empty line there ends it."""
    asks = sys.stdin.isatty()
    if asks:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 (lines can be edited, and called back with the arrow keys)
        print("Type a prompt; an empty line or Ctrl-D ends.", file=sys.stderr)
    while True:
        if asks:
            try:
                line = input("> ")
            except EOFError:
                print()
                return
        else:
            try:
                line = sys.stdin.readline()
            except UnicodeDecodeError as error:
                raise UserError(
                    f"What is typed or piped is no UTF-8 text ({error.reason}). Give it in UTF-8."
                ) from error
            if not line:
                return
        if line.strip():
            yield _written(line.rstrip("\n"))
        elif asks:
            return


def system_prompt(config: dict[str, Any]) -> str:
    """That of a run's prompts, which its rows may bring along; of several tasks the one that all have, else none."""
    from spd_lightning.tasks import load_task
    from spd_lightning.tasks.mix import names_of
    from spd_lightning.tasks.task_file import system_prompt_of

    task_file = config["subspace"]["task_file"]
    try:
        found = {load_task(name, task_file=task_file).system_prompt for name in names_of(config["subspace"]["task"])}
    except UserError as error:  # the file is not here any more, which is no reason to complete nothing
        if not (named := system_prompt_of(task_file)):  # one that is named is that of the rows, too
            print(f"If the run's rows had a system prompt, these prompts stand without it: {error}", file=sys.stderr)
        return named
    return found.pop() if len(found) == 1 else ""


def _models(
    run: RunFolder, config: dict[str, Any], max_new_tokens: int, temperature: float, seed: int
) -> tuple[Complete, str]:
    """What completes a prompt with every model of a run, each loaded once; and how prompts are put."""
    from spd_lightning.generation.engine import generate_batch
    from spd_lightning.generation.requests import build_requests
    from spd_lightning.generation.sampling import SamplingParams
    from spd_lightning.model.load import load_model, load_student, load_tokenizer, resolve_dtype
    from spd_lightning.model.student_base import check_base_of
    from spd_lightning.subspace.projection import fold_projection
    from spd_lightning.subspace.subspace import CapabilitySubspace

    name, dtype = config["subspace"]["model_name_or_path"], resolve_dtype(config["data"]["dtype"])
    tokenizer, form = load_tokenizer(name), config["data"]["prompt_format"]
    system = system_prompt(config)
    params = SamplingParams(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    if (adapter := run.student()) is not None:
        check_base_of(adapter, name)
    base = load_model(name, dtype)
    subspace = CapabilitySubspace.load(run.subspace) if run.subspace.is_file() else None
    student = None if adapter is None else load_student(name, adapter, dtype)

    def complete(prompt: str) -> list[tuple[str, Any]]:
        requests, _ = build_requests(tokenizer, [("prompt", prompt)], prompt_format=form, system=system)
        found = [("base", generate_batch(base, tokenizer, requests, params)[0])]
        if subspace is not None:
            with fold_projection(base, subspace):
                found.append(("projected", generate_batch(base, tokenizer, requests, params)[0]))
        if student is not None:
            found.append(("student", generate_batch(student, tokenizer, requests, params)[0]))
        return found

    how = "plain text" if form == "plain" else "in the chat template"
    behind = f", behind the system prompt {system!r}" if system else ""
    return complete, f"The prompt is {how}, data.prompt_format: {form}{behind}"
