"""A family's checkpoint through the whole command line, as a user types it."""

from __future__ import annotations

import contextlib
import io
import json

from spd_lightning.artifacts.run_folder import RunFolder
from spd_lightning.cli.program import main
from tests.zoo.specimen import Specimen

HERE = ("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false")
SUBSPACE = ("--subspace.num_examples=3", "--subspace.max_length=512", "--subspace.rank=4", *HERE)
SETTINGS = (
    *("--subspace.task=arithmetic", *SUBSPACE),
    *("--data.max_prompt_length=512", "--data.num_prompts=4", "--data.max_new_tokens=6", "--data.batch_size=3"),
    *("--data.dtype=float32", "--model.max_length=512", "--model.batch_size=2", "--trainer.max_epochs=1"),
    *("--evaluation.tasks=[arithmetic, letters]", "--evaluation.limit=2"),
    "--evaluation.methods=[base, student, projected]",
)


def commands(one: Specimen) -> None:
    """``fit``, ``test``, ``sample``, ``export``, ``extract``, ``compare`` and ``report``, each with status 0.

    What ``test`` finds of the run's student and subspace is what ``fit`` found.
    """
    run, tested, other = (RunFolder(one.folder / name) for name in ("run", "tested", "other"))
    model = f"--subspace.model_name_or_path={one.path}"
    typed("fit", model, f"--run_dir={run.path}", *SETTINGS, "--estimate")
    typed("fit", model, f"--run_dir={run.path}", *SETTINGS)
    student, subspace = f"--evaluation.adapter={run.adapter}", f"--evaluation.subspace={run.subspace}"
    typed("test", f"--config={run.config_file}", f"--run_dir={tested.path}", student, subspace)
    scores, again = (json.loads(folder.results.read_text())["scores"] for folder in (run, tested))
    assert len(scores) == 9 and scores == again, f"{again} instead of {scores}"
    typed("sample", str(run.path), "--prompt", "Question: 1 plus 2?")
    for form in ("adapter", "merged", "projected"):
        typed("export", str(run.path), "--form", form, "--out", str(one.folder / "exported" / form))
    typed("extract", model, f"--run_dir={other.path}", "--subspace.task=letters", *SUBSPACE)
    typed("compare", str(run.path), str(other.path), "--plot", str(one.folder / "overlap.png"))
    typed("report", str(run.path), str(tested.path), "--out", str(one.folder / "both"))


def typed(*args: str) -> None:
    """Run a command, which ends with status 0."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = main(list(args))
    assert status == 0, f"{' '.join(args)}: exit status {status}: {said.getvalue()[-500:]}"
