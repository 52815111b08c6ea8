r"""Strings that models really write, and what they answered."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest

from spd_lightning.evaluation.metrics import ParseRate
from spd_lightning.scoring.answers import (
    cut_at_stops,
    extract_code,
    extract_letter,
    extract_number,
    extract_text,
    letters_up_to,
    normalise_text,
    numbers_equal,
    parses,
)
from spd_lightning.scoring.verdicts import holds_answer

CAUSES = ("marker", "boxed", "tag", "answer is", "taken back", "conclusion")
FLEXIBLE = [
    ("18", "18"),
    ("18.", "18"),
    ("18.0", "18"),
    ("18.00", "18"),
    ("0018", "18"),
    ("-3", "-3"),
    ("The change is -3.", "-3"),
    ("+7", "7"),
    ("\u22123", "-3"),
    ("The temperature is \u201312 degrees", "-12"),
    ("Answer:-4", "-4"),
    ("x = -5", "-5"),
    ("10-3", "3"),
    ("10 - 3 = 7", "7"),
    ("10-3=7", "7"),
    ("pages 5\u201310", "10"),
    ("COVID-19", "19"),
    ("$18", "18"),
    ("$1,000.", "1000"),
    ("$29.00", "29"),
    ("\\$29.00", "29"),
    ("$ 1,234,567.89 in all", "1234567.89"),
    ("-$5", "-5"),
    ("$-5", "-5"),
    ("\u2212$1,250", "-1250"),
    ("US$40", "40"),
    ("USD 40", "40"),
    ("Rs.500", "500"),
    ("\u20ac12.50", "12.5"),
    ("12\u20ac", "12"),
    ("\u00a330 left", "30"),
    ("$.50", "0.5"),
    (".75", "0.75"),
    ("ends.5", "5"),
    ("25%", "25"),
    ("25\\%", "25"),
    ("**18**", "18"),
    ("**$18**", "18"),
    ("*18*.", "18"),
    ("__18__", "18"),
    ("`18`", "18"),
    ("The answer is **18**.", "18"),
    ("\\boxed{7}", "7"),
    ("$\\boxed{-7}$.", "-7"),
    ("\\boxed{\\$1,200}", "1200"),
    ("\\boxed{18\\text{ dollars}}", "18"),
    ("\\[ 6 \\times 3 = 18 \\]", "18"),
    ("6\\times3=18", "18"),
    ("\\(18\\)", "18"),
    ("1{,}000", "1000"),
    ("1\\,000", "1000"),
    ("1\u202f000 euros", "1000"),
    ("1\u00a0234\u00a0567", "1234567"),
    ("1,000", "1000"),
    ("1,00,000", "100000"),
    ("12,345", "12345"),
    ("3, 4", "4"),
    ("3,4", "4"),
    ("2, 4, 1000", "1000"),
    ("3/4", "0.75"),
    ("1 1/2 cups", "1.5"),
    ("\\frac{3}{4}", "0.75"),
    ("\\dfrac{1}{2}", "0.5"),
    ("-1/2", "-0.5"),
    ("-\\frac{1}{2}", "-0.5"),
    ("\\boxed{-\\frac{3}{4}}", "-0.75"),
    ("5\\frac{1}{2}", "5.5"),
    ("10-\\frac{1}{2}", "0.5"),
    ("\\frac{12}{5}", "2.4"),
    ("\\frac34", "0.75"),
    ("\\frac 3 4", "0.75"),
    ("$-\\boxed{5}$", "-5"),
    ("\u00bd", "0.5"),
    ("2\u00bd cups", "2.5"),
    ("3 \u00be", "3.75"),
    ("-\u00bd", "-0.5"),
    ("3 - 7 = - 4", "-4"),
    ("= \u2212 18", "-18"),
    ("in all - 18", "18"),
    ("10/2 = 5", "5"),
    ("24/0", "24"),
    ("on 12/25/2024", "2024"),
    ("5kg", "5"),
    ("5 kg.", "5"),
    ("60 miles/hour", "60"),
    ("25 cm^2", "25"),
    ("25 \\text{ cm}^{2}", "25"),
    ("25 m\u00b2", "25"),
    ("2^3 = 8", "8"),
    ("18 litres of H2O", "18"),
    ("18 = x2", "18"),
    ("x_1 is 4 and so is x_2", "4"),
    ("1e3", "1000"),
    ("1.5E+2", "150"),
    ("2e", "2"),
    ("1.2.3", "3"),
    ("18!", "18"),
    ("18?", "18"),
    ("(18)", "18"),
    ("[18]", "18"),
    ("18\u2026", "18"),
    ("\uff11\uff18", "18"),
    ("So 9 * 2 = <<9*2=18>>18 dollars", "18"),
    ("He pays 5 and gets 3 back", "3"),
    ("#### 18", "18"),
    ("... so\n#### 18\n\nQuestion: 5 + 5?\nAnswer: #### 10", "18"),
    ("18\nQuestion: and 40?", "18"),
    ("18\n\nQuestion 2: and 40?", "18"),
    ("The Question: asks for 18", "18"),
    ("1. First\n2. Second\nTotal: 7", "7"),
    ("eighteen", "18"),
    ("no idea", None),
    ("", None),
    (" \n", None),
    ("\nQuestion: 5?", None),
]
STRICT = [
    ("#### 18", "18", "marker"),
    ("####18", "18", "marker"),
    ("So it is 18.\n#### 18.", "18", "marker"),
    ("#### $18", "18", "marker"),
    ("#### \\$1,000.00", "1000", "marker"),
    ("#### **18**", "18", "marker"),
    ("**#### 18**", "18", "marker"),
    ("#### -3", "-3", "marker"),
    ("#### \u22123", "-3", "marker"),
    ("#### \\boxed{18}", "18", "marker"),
    ("#### 18 dollars", "18", "marker"),
    ("#### 18 apples in 3 bags", "18", "marker"),
    ("#### 3/4", "0.75", "marker"),
    ("#### \u00bd", "0.5", "marker"),
    ("#### \\(18\\)", "18", "marker"),
    ("#### \\frac{3}{4}", "0.75", "marker"),
    ("#### [18]", "18", "marker"),
    ('#### "18"', "18", "marker"),
    ("#### ~18", "18", "marker"),
    ("#### - 18", "-18", "marker"),
    ("####\n18", "18", "marker"),
    ("#### 12\nWait, that is wrong.\n#### 14", "14", "marker"),
    ("#### 12\n####", "12", "marker"),
    ("#### 18\nQuestion: 5 + 5\nAnswer: 10\n#### 10", "18", "marker"),
    ("The answer is 18", None, "no #### marker"),
    ("### 18", None, "no #### marker"),
    ("#### eighteen", None, "no number after ####"),
    ("#### The answer is 18", None, "no number after ####"),
    ("", None, "empty completion"),
]
LETTERS = [
    ("A", "A"),
    (" B", "B"),
    ("C.", "C"),
    ("D)", "D"),
    ("(B)", "B"),
    ("B. Paris", "B"),
    ("B: Paris", "B"),
    ("**C**", "C"),
    ("\nD\n", "D"),
    ("The answer is (B).", "B"),
    ("The answer is B", "B"),
    ("The correct answer is: **D**", "D"),
    ("Answer: C", "C"),
    ("answer C", "C"),
    ("The answer is option B.", "B"),
    ("The correct option is C", "C"),
    ("A good reason to pick B", "B"),
    ("A is correct", "A"),
    ("A because of gravity", "A"),
    ("Option A is wrong. The answer is (C)", "C"),
    ("The answer is (A). No, the answer is (D).", "D"),
    ("\\boxed{B}", "B"),
    ("$\\boxed{\\text{C}}$", "C"),
    ("(b)", "B"),
    ("b", "B"),
    ("b.", "B"),
    ("b) Paris", "B"),
    ("d. Paris", "D"),
    ("a: Paris", "A"),
    ("a.m. trains", None),
    ("The answer is (c), since", "C"),
    ("the answer is d.", "D"),
    ("D'Artagnan, so C", "C"),
    ("Vitamins B-12 point to C", "C"),
    ("In Washington D.C. it is B", "B"),
    ("C++ or A", "A"),
    ("25\u00b0C makes it D", "D"),
    ("not A but C", "C"),
    ("B\nQuestion: next\nAnswer: C", "B"),
    ("E", None),
    ("a good one", None),
    ("Because", None),
    ("None of these", None),
    ("", None),
]
TEXTS = [
    ("True", "true"),
    (" True.", "true"),
    ("**Yes**", "yes"),
    ("*True*.", "true"),
    ("_True_", "true"),
    ("\u22125", "-5"),
    ("The answer is no.", "no"),
    ("(B)", "b"),
    ("So the answer is (B).", "b"),
    ("Answer: valid", "valid"),
    ('"plausible"', "plausible"),
    ("two   words ", "two words"),
    ("] ) }", "] ) }"),
    ("(B) The blue car", "(b) the blue car"),
]


def test_the_tables_are_as_long_as_promised() -> None:
    assert len(FLEXIBLE) + len(STRICT) + len(LETTERS) + len(TEXTS) >= 120


@pytest.mark.parametrize(("text", "expected"), FLEXIBLE)
def test_flexible_number(text: str, expected: str | None) -> None:
    value, reason = extract_number(text, "flexible")
    assert value == (None if expected is None else Decimal(expected))
    assert reason in (CAUSES if expected is not None else ("no number", "empty completion"))


@pytest.mark.parametrize(("text", "expected", "reason"), STRICT)
def test_strict_number(text: str, expected: str | None, reason: str) -> None:
    assert extract_number(text, "strict") == (None if expected is None else Decimal(expected), reason)


@pytest.mark.parametrize(("text", "expected"), LETTERS)
def test_letter(text: str, expected: str | None) -> None:
    assert extract_letter(text)[0] == expected


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_text(text: str, expected: str) -> None:
    assert extract_text(text, "one line") == (expected, "first line")


# Outputs of today's models: what a careful person reads, and why. lm-eval's flexible-extract takes the last run of
# digits; where that is another number, both are shown by `test_where_the_field_reads_otherwise`.
CAREFUL = [
    # thinking
    ("<think>Is it 12? 3 * 4 = 12.</think>\n\nShe pays 18 dollars.", "18", "a draft in thought is no answer"),
    ("She pays 18.\n<think>or 20?</think>", "18", "what stands outside the thought counts, before it too"),
    ("3 * 4 = 12, hmm, no.\n</think>\n\n**18**", "18", "the opening tag stood in the prompt"),
    ("<think>3 * 4 = 12, so maybe 12", None, "the thought never ended: nothing was answered"),
    ("<think>12</think>", None, "nothing follows the thought"),
    ("[THINK]12 or 13?[/THINK]18", "18", "another model's tags"),
    ("<|begin_of_thought|>12<|end_of_thought|>\n18", "18", "another model's tags"),
    ("\u25c1think\u25b712\u25c1/think\u25b718", "18", "another model's tags"),
    ("analysisWe need 3*4=12.assistantfinalThe total is 18.", "18", "channels whose special tokens were dropped"),
    ("<think>\nQuestion: is it 12?\n</think>\n18", "18", "a question told again in thought is no next turn"),
    # spaces, apostrophes, points and commas within a number
    ("1\u202f250 euros", "1250", "a narrow no-break space parts thousands"),
    ("1\u2009250\u2009000", "1250000", "thin spaces do"),
    ("12\u00a0500", "12500", "a no-break space does"),
    ("The total is 12 500 dollars.", "12500", "so does a plain one between a group and three digits"),
    ("about 1 234 567 people", "1234567", "twice too"),
    ("100 200 300", "300", "three full groups may as well be three numbers"),
    ("CHF 1'250.50", "1250.5", "an apostrophe parts thousands"),
    ("1\u2019250\u2019000", "1250000", "a typographic one too"),
    ("1_250", "1250", "and an underscore"),
    ("1.234,56 \u20ac", "1234.56", "points part thousands where a comma parts decimals"),
    ("1.250.000", "1250000", "two groups of three can be nothing else"),
    ("\u20ac12,50", "12.5", "a decimal comma, since money stands before it"),
    ("1,5 kg", "1.5", "a decimal comma, since a unit follows"),
    ("3,4", "4", "a bare pair is a list"),
    ("\u0661\u0668", "18", "Arabic-Indic digits"),
    ("\u06f1\u06f2\u06f3", "123", "Persian digits"),
    ("\u0661\u066c\u0662\u0663\u0664\u066b\u0665", "1234.5", "Arabic separators"),
    ("\u0967\u0968", "12", "Devanagari digits"),
    ("\uff11\uff0c\uff12\uff15\uff10", "1250", "full-width digits and comma"),
    ("1\ufe0f\u20e38\ufe0f\u20e3", "18", "keycaps"),
    ("18\u200b", "18", "nothing visible follows"),
    # signs, fractions, times, scales
    ("The temperature is minus 5 degrees.", "-5", "the word is a sign"),
    ("negative 7", "-7", "this word always is"),
    ("10 minus 3", "3", "after a number it is a subtraction"),
    ("10 minus 3 is 7.", "7", "and its result is given"),
    ("minus $5", "-5", "before money too"),
    ("3 3/4 cups", "3.75", "a mixed number"),
    ("3\u00a03\u20444", "3.75", "with a fraction slash and a no-break space"),
    ("3 and 3/4 cups", "3.75", "spoken"),
    ("\u00b3\u2044\u2084", "0.75", "raised and lowered digits"),
    ("\\boxed{3\\tfrac{3}{4}}", "3.75", "in LaTeX"),
    ("He arrives at 12:00.", "12", "a full hour is its number"),
    ("She has 18 eggs at 9:30.", "18", "another time of day is no number"),
    ("2:30", None, "nor alone"),
    ("$2 million", "2000000", "a scale word multiplies"),
    ("$5k", "5000", "so does k after money"),
    ("1.5 \u00d7 10^3", "1500", "a power of ten"),
    ("1.5 \\times 10^{3}", "1500", "in LaTeX"),
    ("The answer is eighteen.", "18", "a number in words"),
    ("So twenty-four are left.", "24", "where no digits say more"),
    # boxes and declarations
    ("\\boxed{18 \\text{ eggs in 2 hours}}", "18", "the unit in the box holds a number of its own"),
    ("\\boxed{25\\ \\text{m}^2}", "25", "an exponent is part of the unit"),
    ("\\boxed{18\\,\\mathrm{m/s^{2}}}", "18", "braces within braces"),
    ("\\boxed{x = 5}", "5", "an equation in the box"),
    ("\\boxed{9 \\times 2 = 18}", "18", "and its result"),
    ("$\\boxed{18}$ because she sells 9 of 16", "18", "an explanation after the box"),
    ("\\boxed{10\\%}", "10", "per cent counts as the data counts it"),
    ("<answer>18</answer> (from 16 eggs)", "18", "a tag"),
    ('{"answer": 18, "confidence": 95}', "18", "JSON"),
    ("#### 18 apples in 3 bags", "18", "the number right after the marker"),
    ("#### Step 1: 16 eggs\n#### Step 2: so 18 are left", "18", "headings mark no answer"),
    ("**Final Answer:** 18\n\nThis uses all 16 eggs.", "18", "the label names it"),
    ("### Answer\n18\n\nChecked against 16 eggs.", "18", "a heading names it"),
    (
        "Answer: 16 - 3 = 13 eggs are left.\nShe sells them for 2 each.\nTotal: 26",
        "26",
        "the label starts the reasoning",
    ),
    ("The answer is 18, not 20.", "18", "the denied number is no answer"),
    ("The answer is not 20 but 18.", "18", "nor where it stands first"),
    ("The answer to question 3 is 18.", "18", "the question's number is no answer"),
    ("The answer is 9 * 2 = 18 dollars.", "18", "the result, not a term"),
    ("The answer is 12. Wait, that is wrong. She has 18.", "18", "taken back"),
    ("#### 12\nWait, I forgot the first day.\n#### 18", "18", "taken back and given anew"),
    # the last sentence holds another number
    ("She will have 18 eggs in the next 24 hours.", "18", "24 is how long"),
    ("So she earned $10 for 50 minutes of babysitting.", "10", "50 is how long the money is for"),
    ("They pay him 360 dollars in 3 weeks.", "360", "3 is how long"),
    ("With $50 he can stay for 5 nights.", "5", "the money is the condition"),
    ("It takes 4 weeks to save $60.", "4", "what is saved for"),
    ("Janet makes $18 from 2 eggs a day * 9.", "18", "2 and 9 are terms of a calculation"),
    ("She makes 18 dollars.\n2 eggs a day * 9", "18", "a line of terms gives no result"),
    ("The total is 18. Rated 5/5", "18", "a rating"),
    ("The total is 18.\nConfidence: 95%", "18", "a confidence"),
    ("She makes $18.\n\nNote: prices are for 12 eggs.", "18", "a note"),
    ("She makes $18.\nCheck: 9 + 9 is more than 16.", "18", "a check"),
    ("So **18** of the 24 eggs are sold.", "18", "the emphasis"),
    ("She makes $18 (9 eggs at 2 dollars).", "18", "the working in brackets"),
    ("She sold 18 because 2 * 9 eggs were fresh.", "18", "the reason after the answer"),
    ("Since 16 are there, 18 were bought.", "18", "the reason before it"),
    ("9 * 2 = 18\nShe makes 18 dollars for 9 eggs.", "18", "18 was just computed, 9 completes it"),
    ("7 + 48 = 55 points are needed to reach 248.", "55", "the result, not what it is needed for"),
    ("33.3%, so 12 * 33.3% = 3.996, which rounds to 4.", "4", "the result is rounded"),
    ("In total 18 out of 20.", "18", "out of how many"),
    ("He is 18 in 2024.", "18", "a year"),
    ("100/5 = 5A/5, so 20 = A", "20", "the unknown stands on the right"),
    ("1. She has 16 eggs.\n2. She sells 18.\n3. Done.", "18", "numbers of a list"),
    ("Tim has 15 apples, which is 25 fewer than Ben.", "15", "a comparison after the answer"),
    ("490 - 49 =", None, "broken off before its result"),
    ("It goes up 5 floors, so it stops on the 8th floor.", "8", "an ordinal is a number"),
    ("The answer is 42<|im_end|>\n<|im_start|>user\n99", "42", "another turn, whose tokens were kept"),
    ("42.\n\nUser: and 50?", "42", "another turn by its speaker"),
    ("The car needs 3 hours to travel 180 miles.", "3", "what for"),
    ("The value of x is 7 when y = 3.", "7", "a condition"),
    ("Die Antwort ist 42, nicht 40.", "42", "German"),
    ("\u7b54\u6848\u662f42\u3002", "42", "Chinese"),
    ("1.248 \u20ac", "1248", "a point before three digits of euros"),
]
# lm-eval 0.4.13, flexible-extract of GSM8K: the last match of this, stripped of $ , and a final point.
FIELD = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")

MORE_LETTERS = [
    ("option b", "B", "named, though in lower case"),
    ("I would go with option c here", "C", "in a sentence too"),
    ("the answer is a vector", None, "an article"),
    ("\uff22", "B", "full width"),
    ("\uff08\uff22\uff09", "B", "full width, in brackets"),
    ("\u7b54\u6848\u662fB\u3002", "B", "Chinese on both sides"),
    ("\u7b54\u6848\uff1aB", "B", "after a full-width colon"),
    ("\u6240\u4ee5\u9009\u62e9B\u9009\u9879", "B", "between Chinese words"),
    ("\u6b63\u89e3\u306fC\u3067\u3059", "C", "Japanese"),
    ("\uc815\ub2f5\uc740 D\uc785\ub2c8\ub2e4", "D", "Korean"),
    ("La respuesta correcta es B.", "B", "Spanish"),
    ("A is tempting, but B is correct", "B", "A is denied, B affirmed"),
    ("A is tempting at first, but the data point to B.", "B", "B is pointed to"),
    ("A is tempting. B", "B", "A is denied"),
    ("<answer>C</answer>", "C", "a tag"),
    ("<answer>\n(C) Rome, not A\n</answer>", "C", "a tag with the option's text"),
    ("Both A and B? No: B", "B", "the question is answered after it"),
    ("ANSWER: B", "B", "capitals"),
    ("**Answer:** **C**", "C", "emphasis between"),
    ("[[D]]", "D", "double brackets"),
    ('{"answer": "B"}', "B", "JSON"),
    ("\\boxed{\\textbf{(B) } 5}", "B", "the option's text in the box"),
    ("\\boxed{\\text{B. Paris}}", "B", "the option's text in the box"),
    ("\\boxed{A, C}", None, "two letters are no choice"),
    ("The answer is A and B", None, "two letters are no choice"),
    ("The answer is A or B.", None, "nor is a doubt between two"),
    ("A. Paris\nB. London\nC. Rome\nD. Berlin", None, "the options told again"),
    ("A. Paris - wrong\nB. London - wrong\nC. Rome (correct)\nD. Berlin - wrong", "C", "one is marked"),
    ("B\n\nA is wrong because of its size; C is too small.", "B", "the text begins with it"),
    ("A, B and C are wrong, so D", "D", "a list that is denied"),
    ("We can rule out A and B. Between C and D, C is better", "C", "what is left over, and affirmed"),
    ("It can't be A; C works, unlike D", "C", "denied on both sides"),
    ("I choose C", "C", "a choice"),
    ("Vitamin C deficiency is scurvy, so B", "B", "C is part of a name"),
    ("The answer is not A but C", "C", "A is denied"),
    ("<think>Is it A? Yes, A.</think>\n\nC", "C", "a draft in thought"),
    ("<think>A", None, "the thought never ended"),
    ("Answer: A\n\nWait, B is larger. Answer: B", "B", "taken back"),
    ("Oh, A? No. Definitely C!", "C", "A is a question"),
    ("My answer: C. Not B.", "C", "B is denied after it"),
    ("The answer may be B. Or it may be (F). Perhaps D.", None, "guesses"),
    ("The answer may be B.", "B", "one guess"),
    ("I think it's B or C, but more likely C.", "C", "the likelier one"),
    ("The one that fits is option (B), not option (C).", "B", "the other is denied"),
    ("A, C", None, "two letters are no choice"),
    ("Both B and C are correct.", None, "two letters are no choice"),
    ("B<|im_end|>\n<|im_start|>user\nC", "B", "another turn"),
]
F = "def f():\n    return 1\n"
MORE_CODE = [
    (f"<think>\n```python\ndef f():\n    return 2\n```\n</think>\n```python\n{F}```", F, "a draft in thought"),
    (f"```bash\npip install x\n```\n```python\n{F}```", F, "bash is not the program"),
    (f"```output\n1\n```\n```\n{F}```", F, "nor is what it prints"),
    (f"```python\nprint(f(3))\n```\nSolution:\n```python\n{F}```", F, "nor an example call"),
    (f"```python\n{F}```\nUsage:\n```python\nx = f()\nprint(x)\n```", F, "an example call behind it"),
    (f"```python\n{F}```\nTests:\n```python\ndef test_f():\n    assert f()\n```", F, "tests behind it"),
    (f"```python:file.py\n{F}```", F, "a file name behind the language"),
    (f"```solution.py\n{F}```", F, "a file name for the language"),
    (f"```{{python}}\n{F}```", F, "R Markdown"),
    (f"```{{.python .numberLines}}\n{F}```", F, "Pandoc"),
    (f"```python3.11\n{F}```", F, "a version"),
    (f'```title="a.py"\n{F}```', F, "an attribute alone"),
    (f'```python title="a.py"\n{F}```', F, "an attribute behind the language"),
    (f"````python\n{F}````", F, "four backticks"),
    (f"````markdown\n```python\n{F}```\n````", F, "a fence within a fence"),
    (f"~~~\n{F}~~~", F, "tildes"),
    (f"```python\n{F}``` This adds one.\nMore.", F, "text behind the closing fence"),
    ("1. So:\n   ```python\n   def f():\n       return 1\n   ```\n", F, "indented in a list"),
    ("- ```python\n  def f():\n      return 1\n  ```", F, "beginning an item of a list"),
    ("> ```python\n> def f():\n>     return 1\n> ```", F, "quoted"),
    (f"Sure! ```python\n{F}```", F, "opened amid a line"),
    ("```python\ndef f():\n    return 1```\nText", F, "closed amid a line"),
    ('```python\ns = """\n```\nx\n```\n"""\n' + F + "```", 's = """\n```\nx\n```\n"""\n' + F, "a fence in quotes"),
    (f"```python\ndef f():\n    return 2\n```\nWait, that is wrong:\n```python\n{F}```", F, "taken back"),
    (f"```python\n{F}```\nAlternatively:\n```python\ndef f():\n    return 2\n```", F, "an alternative"),
    (
        "```python\ndef g():\n    return 1\n```\nthen\n```python\ndef f():\n    return g()\n```",
        "def g():\n    return 1\n\ndef f():\n    return g()\n",
        "two parts of one program",
    ),
    (f"Solution\n```\n{F}```", F, "a word that happens to parse"),
    (f"Here is the function:\n\n{F}\nThis function returns one.", f"{F}\n", "no fence, prose around it"),
    ("    return x\n\nThis returns x.", "    return x\n\n", "a body with prose behind it"),
    (f"[PYTHON]\n{F}[/PYTHON]", F, "tags"),
    ("def f():\n    return 1\n\ndef g(", "def f():\n    return 1\n\ndef g(", "code that broke off is not mended"),
    ("```python\ndef f(:\n```\n```python\nprint(1)\n```", "def f(:\n", "a broken answer is the answer"),
    ("```javascript\nlet x;\n```", "let x;\n", "another language, where there is no Python"),
    ("def f():\n    return '</think>'\n", "def f():\n    return '</think>'\n", "a tag within a program"),
    (f"[BEGIN]\n{F}[DONE]", F, "the marks of MBPP's prompt, which are Python too"),
    (f"{F}[DONE]\n\nYou are", F.rstrip(), "the end mark alone"),
    (f"<think>\n[PYTHON]\nf = 2\n[/PYTHON]</think>\n[PYTHON]\n{F}[/PYTHON]", F, "a draft in thought, in tags"),
    (f"<think>It ends in\n[DONE]\n</think>```python\n{F}```", F, "the end mark in thought"),
    (">>> def f():\n...     return 1\n...\n>>> f()\n1\n", f"{F}f()\n", "an interactive session"),
    ("Here:\n\n    def f():\n        return 1\n\nDone.", f"{F}\n", "a block by indentation"),
    ("```python def f():\n    return 1\n```", F, "code on the line of the fence"),
    (f"```python\n{F}\nThis function returns one.", f"{F}\n", "never closed, prose behind"),
    ("def f():\n\u00a0\u00a0\u00a0\u00a0return 1\n", F, "spaces that only look like spaces"),
    ("Answer: `def f(): return 1`", "def f(): return 1\n", "one line in single backticks"),
]


@pytest.mark.parametrize(("text", "expected", "why"), CAREFUL)
def test_what_a_careful_person_reads(text: str, expected: str | None, why: str) -> None:
    assert extract_number(text, "flexible")[0] == (None if expected is None else Decimal(expected)), why


def test_where_the_field_reads_otherwise() -> None:
    """Both readings are kept: ours in `flexible`, the field's by its own expression here."""

    def field(text: str) -> str | None:
        found = FIELD.findall(text)
        last = next((group for group in found[-1] if group), None) if found else None
        return None if last is None else re.sub(r"[$,]|\.$", "", last)

    differ = {text: field(text) for text, expected, _ in CAREFUL if field(text) != expected}
    assert len(differ) >= 60  # the table is about them
    assert differ["She will have 18 eggs in the next 24 hours."] == "24"
    assert differ["The total is 18. Rated 5/5"] == "5"
    assert differ["<think>12</think>"] == "12"
    assert differ["1\u2019250\u2019000"] == "000"
    # what both read the same stays the same
    assert field("He pays 5 and gets 3 back") == "3" == str(extract_number("He pays 5 and gets 3 back", "flexible")[0])


def test_strict_stays_the_marker_rule() -> None:
    assert extract_number("The answer is 18", "strict") == (None, "no #### marker")
    assert extract_number("#### eighteen", "strict") == (None, "no number after ####")
    assert extract_number("#### 12\nWait, it is 18.", "strict") == (Decimal(12), "marker")
    assert extract_number("#### 17 or 18", "strict")[0] == 17
    assert extract_number("<think>\n#### 12\n</think>\n#### 18", "strict")[0] == 18


@pytest.mark.parametrize(("text", "expected", "why"), MORE_LETTERS)
def test_which_letter_a_careful_person_reads(text: str, expected: str | None, why: str) -> None:
    assert extract_letter(text)[0] == expected, why


@pytest.mark.parametrize(("completion", "code", "why"), MORE_CODE)
def test_which_code_a_careful_person_copies(completion: str, code: str, why: str) -> None:
    assert extract_code(completion) == code, why


def test_only_thinking_is_no_answer_of_any_kind() -> None:
    thought = "<think>\nIs it 12, or (B)?\n"
    assert extract_number(thought, "flexible") == (None, "only thinking")
    assert extract_letter(thought) == (None, "only thinking")
    assert extract_text(thought, "x") == (None, "only thinking")
    assert not any(holds_answer(thought, kind) for kind in ("number", "letter", "text", "program"))


def test_a_marked_text_is_read() -> None:
    assert extract_text("Reasoning.\nMore.\n<answer>Yes.</answer>", "yes") == ("yes", "tag")
    assert extract_text("So it is $\\boxed{(B)}$", "(B)") == ("b", "tag")


def test_letters_beyond_d_are_counted_as_they_are_scored() -> None:
    assert letters_up_to(["B"]) == "ABCD"
    assert not holds_answer("The answer is E", "letter")
    assert holds_answer("The answer is E", "letter", letters_up_to(["A", "E"]))


def test_other_letters_and_other_stops() -> None:
    assert extract_letter("The answer is (F).", "ABCDEF") == ("F", "answer is")
    assert extract_letter("I think it is G", "ABCDEFGHI") == ("G", "affirmed")
    assert extract_number("18\nQuestion: 20", "flexible", stops=()) == (Decimal(20), "conclusion")


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="mode='loose'"):
        extract_number("1", "loose")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["9" * 5000, "1e99", "," * 5000, "-" * 5000 + "1", "1," * 3000, "a_" * 5000])
def test_hostile_text_takes_no_time(text: str) -> None:
    import time

    start = time.perf_counter()
    value, _ = extract_number(text, "flexible")
    extract_letter(text)
    numbers_equal(value, Decimal(18))
    assert time.perf_counter() - start < 1.0


def test_numbers_are_compared_as_numbers_within_the_published_tolerance() -> None:
    assert numbers_equal(Decimal("18.00"), Decimal("18"))
    assert numbers_equal(Decimal("0.33333"), Decimal("0.3333"))
    assert not numbers_equal(Decimal("8.5"), Decimal("9"))
    assert not numbers_equal(None, None)


def test_the_first_stop_in_the_text_cuts_whatever_its_place_in_the_list() -> None:
    assert cut_at_stops("a STOP b HALT c", ("HALT", "STOP")) == "a "
    assert cut_at_stops("abc", ("x", "")) == "abc"


def test_texts_of_several_lines_are_compared_whole() -> None:
    assert extract_text("one\n\nTwo.\nthree", "One\nTwo") == ("one two", "lines")
    assert extract_text("\n\nTrue\nbecause", "True") == ("true", "first line")
    assert extract_text(" \n", "True") == (None, "empty completion")
    assert normalise_text("One\nTwo.") == "one two"


CODE = [
    ("def f():\n    return 1\n", "def f():\n    return 1\n"),
    ("Sure!\n```python\ndef f():\n    return 1\n```\nDone.", "def f():\n    return 1\n"),
    ("```\nx = 1\n```", "x = 1\n"),
    ("```py\nx = 1\n```\nor\n```python\nx = 2\n```", "x = 1\n"),
    ("```python\nx = 1\n", "x = 1\n"),
    ("Here is the code:\n```\nx = 1\n", "x = 1\n"),
    ("    return x + 1\n```\nThis adds one.", "    return x + 1\n"),
    ("~~~python\nx = 1\n~~~", "x = 1\n"),
    ("```python\r\nx = 1\r\n```", "x = 1\r\n"),
    ("s = '```'\n", "s = '```'\n"),
    ("", ""),
]


@pytest.mark.parametrize(("completion", "code"), CODE)
def test_code(completion: str, code: str) -> None:
    assert extract_code(completion) == code


def test_parses() -> None:
    assert parses("x = '\\d'")
    assert not parses("")
    assert not parses("x = \x00")
    assert not parses("(" * 10_000)
    assert not parses("here is")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("    total = 1\n    return total\n", True),  # the body of a function, as HumanEval asks for it
        ("\n\tx = 1\n\ty = 2", True),
        ("  def f():\n      return 1\n  f()", True),
        ('    s = """\nat the margin\n"""\n    return s', True),  # what stands in quotes is no indentation
        ("# told first\n    x = 1\n    y = 2", True),
        (" x = 1\ny = 2", True),  # a stray first space, as decoders leave it
        ("    x = 1\n  y = 2", False),
        ("x = 1\n    y = 2", False),
        ("    # nothing but words", False),
    ],
)
def test_code_indented_as_a_whole_parses(code: str, expected: bool) -> None:
    assert parses(code) is expected
    assert holds_answer(code, "program") is expected
    assert ParseRate().compute(predictions=[code, f"Here:\n```python\n{code}\n```"])["parse_rate"] == float(expected)


@pytest.mark.parametrize(
    ("completion", "answer_type", "expected"),
    [
        ("so 7", "number", True),
        ("no idea", "number", False),
        (" B.", "letter", True),
        (" hm", "letter", False),
        ("```python\nx = 1\n```", "program", True),
        ("def f(:", "program", False),
        ("    return x + 1\n", "program", True),
        ("", "program", False),
        ("x = 1", "likelihood", True),
        (" yes", "text", True),
        (" \n", "text", False),
    ],
)
def test_holds_answer(completion: str, answer_type: str, expected: bool) -> None:
    assert holds_answer(completion, answer_type) is expected
