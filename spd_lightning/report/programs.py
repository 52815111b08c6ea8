"""Stage 5: programs that are judged otherwise when they share a process with their tests."""

from __future__ import annotations

from collections.abc import Sequence

from spd_lightning.report.runs import Run

SHOWN = 5


def program_notes(runs: Sequence[Run]) -> list[str]:
    """A line for each benchmark and method where ``pass@k`` and ``pass@k_one_process`` counted different programs, or
    where some could only be run in one process."""
    lines = []
    for run in runs:
        for name, facts in (run.results.get("benchmarks") or {}).items():
            found = facts.get("one_process") or {}
            differ, shared = found.get("disagreements", []), found.get("shared", 0)
            said = [f"{row['id']} ({row['reason']})" for row in differ[:SHOWN]]
            more = [f"{len(differ) - SHOWN} more in results.json"] if len(differ) > SHOWN else []
            if differ:
                lines.append(f"{name}: judged otherwise in one process: {', '.join([*said, *more])}.")
            if shared:
                lines.append(f"{name}: {shared} could only be run in one process: their tests name a class of theirs.")
    return lines
