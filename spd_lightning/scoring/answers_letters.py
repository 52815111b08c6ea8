r"""Which option a completion chooses, read as a careful person does.

In this order: the last declared answer (``\boxed{B}``, ``<answer>B</answer>``, ``[[B]]``, ``the answer is B``,
``option b``, also in a few other languages); a letter that the text begins with (``B``, ``(B)``, ``B. Paris``); the
last letter that is affirmed (``B is correct``, ``so B``, ``I choose B``); the first of those left over. A letter that
is denied (``not A``, ``A is tempting``, ``rule out A``) or belongs to a name (``vitamin C``, ``B-12``) is none of
these; two letters declared at once (``A and B``) and a mere list of all options are no answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from spd_lightning.scoring.answers_cut import NEXT_TURN, answer_part

_LATIN = "A-Za-z0-9_\u00c0-\u052f"  # what makes a letter part of a word; Chinese, Japanese and Korean neighbours do not
_WRAPPING = re.compile(
    r"\\(?:text|textbf|textrm|textsf|textit|mathrm|mathbf|mathsf|mathcal|mathit|bm|boldsymbol|operatorname)\s*"
    r"\{([^{}]*)\}"
)
_NAMES = (
    "vitamins?|hepatitis|influenza|type|plan|figure|fig\\.|table|appendix|point|grade|class|group|team|person|company|angle"
    "|section|part|schedule|column|row|set|protein|factor|case|drug|block|vertex|node|city|firm|country|player|line|bus"
)
_GAP = r"[\s*_`\"'“”‘’(\[{<$:：\\,~–—-]{0,8}"
_ANSWER = (
    r"(?:\b(?:answer|ans\.?|response|antwort|r[ée]ponse|respuesta|resposta|risposta)|答案|答え|正解|정답|[Оо]твет|選択肢"
    r"|答(?=\s?[:：])|답(?=\s?[:：은])|[Đđ]áp án"
    r"|\b(?:correct|right|best|final|my|appropriate|suitable)\s+(?:answer|option|choice|letter|statement|one)"
    r"|\b(?:option|choice)(?=\W{1,4}is\b))"
)
_JOINT = (
    r"(?:[’']s\s)?(?:[*_`\"')\]]*\s*"
    r"(?:\b(?:is|was|would be|will be|must be|should be|therefore|thus|then|ist|est|es|é|è)\b|[:：=]|->|→"
    r"|是|为|為|は|은|는|선택)\s*){0,3}"
    r"(?:(?:most likely|probably|clearly|definitely|indeed|actually|hence|the|that|likely)\s+){0,2}"
)
_KIND = r"(?:(?:options?|choice|letter|answer|选项|選項)\W{0,4})?"
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|isn[’']t|neither|nor|never|than|unlike|instead of|rul(?:e|es|ed|ing) out|eliminat(?:e|es|ed|ing)"
    r"|exclud(?:e|es|ed|ing)|reject(?:s|ed|ing)?|except|discard(?:s|ed|ing)?|cross(?:ed|ing)? out|none of"
    r"|both|either|between)|不是|排除)(?: (?:options?|choices?|answer|both|either))?\W{0,4}"
    r"(?P<list>(?:\(?[A-Z]\)?(?:, (?:and |or )?| and | or |/)\(?)*)$",
    re.IGNORECASE,
)
_HEDGED = re.compile(r"\b(?:perhaps|maybe|possibly|(?:may|might|could) (?:well )?be)\b[^.!?\n]*$", re.IGNORECASE)
_DENIED_AFTER = re.compile(
    r"[)\]*_]{0,4}\?|[)\]*_:]{0,4}(?: [-–—])?\s*(?:is|are|was|were|seems?|looks?|sounds?|can|may|might|could|would"
    r"|does|do|did|be|also|all|both|has|at first|\s)*\s*(?:\bnot\b|n[’']t\b|\b(?:cannot|tempting|wrong|incorrect"
    r"|false|out\b|ruled|eliminated|excluded|irrelevant|unlikely|attractive|a (?:trap|distractor|common)|close\b"
    r"|misleading|implausible)|错|不对|不正确)",
    re.IGNORECASE,
)
_FALSE = re.compile(  # of an option at the beginning: what might be its own text ("(D) cannot pay") is no denial
    r"[)\]*]* (?:is|seems|looks|sounds|can be) (?:\w+ )?(?:wrong|incorrect|false|tempting|ruled|eliminated|excluded"
    r"|not (?:correct|right|true|the answer))\b"
)
_AFFIRMED_AFTER = re.compile(
    r"[)\]*_:.]{0,4}\s*(?:,\s*(?:which|it)\s*)?[^.\n;,]{0,40}?\b(?:is|are|seems|looks|must be|would be|being|marked)\s+"
    r"(?:also\s+)?(?:the\s+)?(?:most\s+|only\s+|one\s+that\s+is\s+)?"
    r"(?:correct|right|best|better|closer|closest|true|answer|accurate|appropriate|it\b)"
    r"|[)\]*_:.]{0,4}\s*(?:fits|works|matches|wins|holds|remains)\b"
    r"|[^\n]{0,80}(?:✓|✅|✔|\(correct\)|← ?correct|- correct\b)|(?:项)?(?:是)?(?:正确|正確|对|が正しい|です)",
    re.IGNORECASE,
)
_AFFIRMED_BEFORE = re.compile(
    r"(?:\b(?:choos(?:e|es|ing)|chose|pick(?:s|ed)?|select(?:s|ed|ing)?|go(?:ing)? with|opt for|prefer|say"
    r"|it[’']s|it is|must be|should be|so|therefore|thus|hence|leav(?:es|ing)|points? to|yes|no|finally|result"
    r"|conclusion|but|(?:left|remaining|remains|one) is|definitely|certainly|surely)\b"
    r"(?: (?:more|most|likely|probably|with|is|options?|choice|letter|answer|us))*\W{0,6}"
    r"|(?:选择?|選択?|故选|应选|所以|因此)\W{0,3})$",
    re.IGNORECASE,
)


def extract_letter(text: str, letters: str = "ABCD", stops: Iterable[str] = NEXT_TURN) -> tuple[str | None, str]:
    """The choice that a completion names, and why.

    Args:
        text: The completion.
        letters: The allowed letters, upper case.
        stops: The text is cut before the first of these.

    Returns:
        The letter and ``"boxed"``, ``"tag"``, ``"answer is"``, ``"begins with it"``, ``"affirmed"``, ``"letter"`` or
        ``"lower case"`` (the rule that found it); or None and ``"empty completion"``, ``"only thinking"``,
        ``"several letters"`` or ``"no letter"``.
    """
    text, nothing = answer_part(text, stops)
    if nothing:
        return None, nothing
    text = _plain(text)
    declared = _declared(text, letters)
    if declared:
        return declared
    if re.fullmatch(rf"[\s(*_]*[{letters}](?:[\s()*_]*(?:[,;/&]|\band\b|\bor\b)+[\s()*_]*[{letters}])+[\s.)*_]*", text):
        return None, "several letters"
    found = [m for m in re.finditer(_alone(letters), text) if not _is_name(text, m)]
    if _lists_all(text, letters):
        found = [m for m in found if _AFFIRMED_AFTER.match(text, m.end()) and not _denied(text, m)]
        return (found[-1][1], "affirmed") if found else (None, "several letters")
    begins = re.match(
        rf"\W*([{letters}])(?=[\W_]*$|[.)\]:：,*\-–—、。】]|\s*\n)(?!['’-]\w|\.[A-Z]\.)(?!,? (?:and|or)\b)", text
    )
    rest = text[begins.end() :] if begins else ""
    several = re.match(rf"[)\]*]*(?:,? (?:and|or|&) |, ?\(?[{letters}](?![{_LATIN}]))", rest)
    if begins and not several and not _FALSE.match(rest):
        return begins[1], "begins with it"
    found = [m for m in found if not _denied(text, m)]
    sure = [m for m in found if not _HEDGED.search(text[max(0, m.start() - 60) : m.start()])]
    affirmed = [m for m in sure if _affirmed(text, m)] or [m for m in found if _affirmed(text, m)]
    if not sure and len({m[1] for m in found}) > 1:
        return None, "several letters"
    if affirmed:
        return affirmed[-1][1], "affirmed"
    if found:
        return found[0][1], "letter"
    low = f"[{letters.lower()}]"
    match = re.search(rf"\(({low})\)", text) or re.match(rf"\W*({low})(?:[).:]\s|[\W_]*$)", text)
    return (match[1].upper(), "lower case") if match else (None, "no letter")


def letters_up_to(expected: Iterable[str]) -> str:
    """The letters that a set of questions allows: A to D, or further where a gold answer is a later letter.

    >>> letters_up_to(["B", "F"])
    'ABCDEF'
    """
    return "".join(chr(code) for code in range(ord("A"), ord(max(["D", *expected])) + 1))


def _plain(text: str) -> str:
    """The text with full-width, circled and mathematical letters as plain ones, without LaTeX's wrapping of text."""
    if not text.isascii():
        text = re.sub(
            r"[^\x00-\x7f]", lambda m: n if len(n := unicodedata.normalize("NFKC", m[0])) == 1 else m[0], text
        )
    text = re.sub(rf"(?<![{_LATIN}])['‘’“\"]([A-Z])['’”\"](?![{_LATIN}])", r"\1", text)
    while (unwrapped := _WRAPPING.sub(r"\1", text)) != text:
        text = unwrapped
    return text


def _alone(letters: str) -> str:
    """A capital that stands alone: no part of a word, a name (B-12, D'Artagnan, C++, D.C.) or a measure (25°C).

    After the article A and the pronoun I no word in lower case may follow, but for those that follow a choice.
    """
    return (
        rf"(?<![{_LATIN}°’'-])(?<![A-Z]\.)([{letters}])(?![{_LATIN}#+]|['’-][{_LATIN}]|\.[A-Z]\.)"
        r"(?!(?<=[AI]) (?!(?:is|was|and|or|because|since|as|would|seems|fits|can|at)\b)[a-z])"
    )


def _declared(text: str, letters: str) -> tuple[str | None, str] | None:
    """The last letter that is said to be the answer; None and ``"several letters"`` where more than one is."""
    upper, lower, end = f"[{letters}]", f"[{letters.lower()}]", rf"(?![{_LATIN}])"
    single = rf"(?:{_alone(letters)}|({lower})(?=[)\].:,;*\"'}}]|\s*(?:\n|$)))"
    grouped = rf"{_KIND}\W*({upper}|{lower}){end}"
    rules = (
        ("boxed", rf"\\(?:boxed|fbox)\s*\{{\W*{grouped}"),
        ("tag", rf"<(?:answer|final_answer|choice|option)>\s*\W*{grouped}"),
        ("tag", rf"\[\[\s*{grouped}\W*\]\]"),
        ("answer is", rf"(?i:{_ANSWER})(?i:{_JOINT}){_GAP}(?i:{_KIND}){_GAP}{single}"),
        ("answer is", rf"(?i:\b(?:answer|option|choice))\s+({lower})(?=[\s).,:;*]|$)(?!(?<=a)\s(?!is\b)[a-z])"),
        ("answer is", rf"(?i:\b(?:correct|right|best) (?:one|option|choice))\s+(?:is|was)\W+({upper}|{lower}){end}"),
    )
    found = []
    for reason, pattern in rules:
        for m in re.finditer(pattern, text):
            at = m.start(m.lastindex or 0)
            refused = re.search(r"\b(?:not|n[’']t|no)\W*(?:\w+\W+)?$", text[max(0, m.start() - 12) : at], re.IGNORECASE)
            # "option b is wrong"; after "the answer is B" the denial is of something else
            bare = reason == "answer is" and not re.search(r"(?i)is\W", m[0])
            if not refused and not (bare and _DENIED_AFTER.match(text, m.end())):
                found.append((m.start(), m.end(), text[at].upper(), reason))
    if not found:
        return None
    _, at, letter, reason = max(found)
    other = rf"\(?(?!{letter}){upper}{end}"
    if reason in ("boxed", "tag") and re.match(rf"[)\]*.]*\s*(?:,|and|&|/)\s*{other}", text[at:]):
        return None, "several letters"
    chain = rf"[)\]*]*(?:,\s*\(?{upper}{end}\)?)*,?\s*(?:and|or|&|/)\s*{other}(?! (?:is|are)\b)"
    return (None, "several letters") if re.match(chain, text[at:]) else (letter, reason)


def _affirmed(text: str, match: re.Match[str]) -> bool:
    before = text[max(0, match.start() - 40) : match.start()]
    listed = re.match(r"[)\]]?,? (?:and|or) \(?[A-Z]\b", text[match.end() : match.end() + 10])
    return bool(_AFFIRMED_AFTER.match(text, match.end()) or (_AFFIRMED_BEFORE.search(before) and not listed))


def _denied(text: str, match: re.Match[str]) -> bool:
    after = text[match.end() : match.end() + 60]
    chain = re.match(r"[)\]]?(?:(?:,| and| or|, and)\s+\(?[A-Z]\)?(?![A-Za-z]))+", after)  # "A, B and D are wrong"
    end = match.end() + (chain.end() if chain else 0)
    if _DENIED_AFTER.match(text, end):
        return True
    denial = _DENIED_BEFORE.search(text[max(0, match.start() - 40) : match.start()])
    # "between C and D, C is better": a letter that is affirmed is no longer part of the list before it
    return denial is not None and not (denial["list"].endswith(", ") and _AFFIRMED_AFTER.match(text, match.end()))


def _is_name(text: str, match: re.Match[str]) -> bool:
    return bool(re.search(rf"\b(?:{_NAMES})\s+$", text[max(0, match.start() - 16) : match.start()], re.IGNORECASE))


def _lists_all(text: str, letters: str) -> bool:
    """Whether the lines begin with the options from A on, one after the other: a list told again, not a choice."""
    starts = re.findall(rf"^[ \t*_(-]*([{letters}])[).:*]", text, re.MULTILINE)
    return len(starts) > 2 and starts[:3] == list(letters[:3]) and bool(re.match(r"\W*A", text))
