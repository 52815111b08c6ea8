"""The numbers elsewhere (CSV, LaTeX, a line to paste), and runs that are not done or failed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from spd_lightning.cli.program import main
from spd_lightning.errors import UserError
from spd_lightning.report.across import across_rows
from spd_lightning.report.exports import csv_tables, latex, latex_table, one_line
from spd_lightning.report.page import write_report
from spd_lightning.report.render import Table
from spd_lightning.report.runs import read_run
from spd_lightning.report.single import one_run
from spd_lightning.report.unfinished import failed_points, read_half, read_runs
from tests.unit.report.test_across import run_of
from tests.unit.report.test_report import make_run


def test_csv_has_every_digit_and_both_ends_of_an_interval(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "r", gain=0.1 + 1e-12))
    tables = csv_tables(run.results)
    assert list(tables) == ["scores", "comparisons", "stages"]
    rows = list(csv.DictReader(io.StringIO(tables["scores"])))
    assert [float(row["value"]) for row in rows] == [s["value"] for s in run.scores]
    assert [float(row["ci95_high"]) for row in rows] == [s["ci95"][1] for s in run.scores]
    assert rows[0]["isolation"] == "" and rows[0]["task"] == "arithmetic"


def test_csv_has_a_column_for_what_a_row_holds_by_name_and_one_word_for_a_list() -> None:
    row = {"task": "mmlu", "ci95": None, "students": {"p_value": 0.25, "ci95": [0.1, 0.2]}, "seeds": [1, 2, 3]}
    (table,) = csv_tables({"comparisons": [row]}).values()
    (found,) = csv.DictReader(io.StringIO(table))
    assert found == {
        "task": "mmlu",
        "ci95_low": "",
        "ci95_high": "",
        "students_p_value": "0.25",
        "students_ci95_low": "0.1",
        "students_ci95_high": "0.2",
        "seeds": "1 2 3",
    }


def test_latex_is_escaped_and_bold_where_marked() -> None:
    table = Table(("a_b", "n"), [("50% & $x$ {}\\~^#", "1")], frozenset({(0, 1)}), caption="C", note="† p < 5%")
    text = latex_table(table)
    assert r"a\_b & n \\" in text and r"50\% \& \$x\$ \{\}\textbackslash{}\textasciitilde{}\textasciicircum{}\#" in text
    assert r"\textbf{1*}" in text and r"\begin{tabular}{lr}" in text and r"\textdagger{} p < 5\%" in text
    assert r"{[}0] & 1 \\" in latex_table(Table(("a", "n"), [("[0]", "1")]))
    assert latex("± 2") == r"$\pm$ 2"


def test_a_line_to_paste_of_one_run_and_of_arms(tmp_path: Path) -> None:
    lines = one_line([read_run(make_run(tmp_path / "r"))], []).split("\n")
    assert lines[0] == "| model | trained by | seeds | arithmetic (in) | letters (out) |"
    assert lines[2] == (
        "| tiny | spd | 1 | 20.0 to 50.0: +30.0 [+20.0, +40.0], n=100 | 30.0 to 33.0: +3.0 [-7.0, +13.0], n=100 |"
    )
    run = read_run(tmp_path / "r")
    run.comparisons[0]["n"] = 90  # that both answered: their scores are of more, and differ by another number
    assert (
        one_line([run], []).split("\n")[2].startswith("| tiny | spd | 1 | +30.0 [+20.0, +40.0], n=90 | 30.0 to 33.0: ")
    )
    runs = [read_run(run_of(tmp_path / f"{m}{s}", m, s, 0.6)) for m in ("ssd", "spd") for s in (1, 2, 3)]
    rows = across_rows(runs)
    lines = one_line(runs, rows).split("\n")
    shown = f"{100 * rows[0]['delta']:+.1f} [{100 * rows[0]['ci95'][0]:+.1f}, {100 * rows[0]['ci95'][1]:+.1f}], n=200"
    assert len(lines) == 4 and lines[2] == f"| tiny | ssd | 3 | {shown} |"


def test_formats_and_plots_are_those_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = make_run(tmp_path / "r"), tmp_path / "out"
    assert main(["report", str(run), "--out", str(out), "--format", "csv, latex,md", "--plots", "svg,pdf"]) == 0
    files = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    names = ("differences", "lengths", "loss", "scores", "spectrum", "time")
    tables = {f"tables/{name}" for name in ("scores.csv", "comparisons.csv", "stages.csv", "report.tex")}
    assert files == {"report.md", *tables, *(f"plots/{name}.{kind}" for name in names for kind in ("svg", "pdf"))}
    assert "](plots/scores.svg)" in (out / "report.md").read_text() and str(out) in capsys.readouterr().out
    made = (out / "tables" / "report.tex").read_text()
    assert r"\caption{Paired comparisons}" in made and r"\caption{Texts that stand in a benchmark}" in made
    shown = [b for s in one_run(read_run(run)) for b in s.blocks if isinstance(b, Table)]
    assert len(shown) > 5 and all(table.caption for table in shown), "LaTeX has those with a caption"
    assert main(["report", str(run), "--out", str(tmp_path / "bare"), "--format", "md,json", "--plots", ""]) == 0
    assert {p.name for p in (tmp_path / "bare").iterdir()} == {"report.md", "results.json"}
    text = (tmp_path / "bare" / "report.md").read_text()
    assert "plots/" not in text and "arithmetic, exact\\_match\\_flexible, n=100: base 20.0" in text, "figures in words"
    capsys.readouterr()
    assert main(["report", str(run), "--format", "md,docx"]) == 2
    assert "format=docx (--format) is not known. Choose from md,html,json,csv,latex." in capsys.readouterr().err
    with pytest.raises(UserError, match=r"plots=jpg \(--plots\)"):
        write_report([run], out, plots=("jpg",))


def half(path: Path) -> Path:
    make_run(path)
    (path / "results.json").unlink()
    return path


def test_a_run_that_was_not_scored_has_its_page_and_says_so(tmp_path: Path) -> None:
    path = half(tmp_path / "r")
    (path / "environment.json").write_text(json.dumps({"fingerprint": "abc"}))
    run = read_half(path)
    assert run.half_done.startswith("This run is half done: there are subspace, corpus, and no scores. Finish it with:")
    page = write_report([path], tmp_path / "out").read_text()
    assert "Does SPD on arithmetic help tiny?" in page and "No answer yet: no benchmark was scored." in page
    assert "This run is half done" in page and "Self-generated corpus" in page and "fingerprint abc" in page
    assert not (tmp_path / "out" / "results.json").exists(), "what was not scored leaves no results"


def test_half_done_runs_are_left_out_of_several_and_named(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=2), half(tmp_path / "c")]
    page = write_report(runs, tmp_path / "out").read_text()
    assert "c is not in this report: it was not scored. Finish it with: python -m spd_lightning fit --config" in page
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["runs"]) == 2
    one = write_report([runs[0], runs[2]], tmp_path / "one").read_text()
    assert "c is not in this report" in one and "Shown for this student" in one
    with pytest.raises(UserError, match=r"None of the 2 runs was scored: c: it was not scored.*d: it was not"):
        write_report([runs[2], half(tmp_path / "d")], tmp_path / "none")


def test_failed_points_of_a_sweep_are_named_with_the_end_of_their_log(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, rank=rank) for name, rank in (("rank4", 4), ("rank8", 8))]
    state = tmp_path / ".sweep"
    state.mkdir()
    for name, status in (("rank4", 0), ("rank8", 0), ("rank16", 1), ("rank32", 9)):
        (state / f"{name}.json").write_text(json.dumps({"status": status}))
    (state / "rank16.log").write_text("loading\nrank=16 (--subspace.rank) is above 8.\n\n")
    (state / "torn.json").write_text("{")
    assert failed_points(tmp_path) == {
        "rank16": "its command failed with status 1: rank=16 (--subspace.rank) is above 8.",
        "rank32": "its command failed with status 9: its log is empty",
    }
    found, missing = read_runs(runs)
    assert len(found) == 2 and list(missing) == ["rank16", "rank32"]
    page = write_report(runs, tmp_path / "out").read_text()
    assert "rank16 is not in this report: its command failed with status 1" in page
    assert failed_points(tmp_path / "absent") == {}
