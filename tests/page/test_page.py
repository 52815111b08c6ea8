"""The report in a browser: at three widths nothing leaves the page, the answer is on the first screen, nothing is asked
of any network, every check of axe-core holds, and its numbers are those of ``results.json``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.page.browser import CHROMIUM, Browser, browser
from tests.page.pages import NAMES, make_pages

AXE = Path(sys.prefix) / "browser" / "node_modules" / "axe-core" / "axe.min.js"
HEIGHTS = {390: 844, 768: 1024, 1280: 800}
A4 = 688  # pixels between the margins
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH: `make browser` installs it as root")

TEXTS = "[...document.querySelectorAll('{}')].map((node) => node.textContent)"
OPEN = "document.querySelectorAll('details').forEach((part) => { part.open = true; });"
WIDER = """
(() => {
  const found = [];
  for (const node of document.querySelectorAll('body *')) {
    const box = node.getBoundingClientRect();
    if (box.width && box.right > innerWidth + 1 && !node.closest('.scroll, nav, .skip')) found.push(node.outerHTML.slice(0, 200));
  }
  if (document.documentElement.scrollWidth > innerWidth) found.push('the page scrolls sideways');
  return found;
})()
"""  # noqa: E501


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_pages(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", HEIGHTS)
def test_nothing_leaves_the_page_and_nothing_is_fetched(
    chromium: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    chromium.open(pages[name], width, HEIGHTS[width])
    assert chromium.run(WIDER) == []
    bottoms = chromium.run(
        "[...document.querySelectorAll('h1, .verdict, .notices summary')]"
        ".concat([document.querySelector('.three svg')].filter(Boolean))"
        ".map((node) => node.getBoundingClientRect().bottom)"
    )
    assert len(bottoms) >= 2 and max(bottoms) <= HEIGHTS[width], "the answer and its figure are on the first screen"
    chromium.run(OPEN)
    assert chromium.run(WIDER) == []
    assert chromium.messages == [] and chromium.requests == [pages[name].resolve().as_uri()]


AXE_RUN = """
axe.run().then((all) => all.violations.map(
  (found) => [found.id, found.nodes.length, found.nodes[0].html.slice(0, 200), found.nodes[0].failureSummary]
))
"""


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_nothing(chromium: Browser, pages: dict[str, Path], name: str, width: int, dark: bool) -> None:
    if not AXE.is_file():
        pytest.skip(f"no axe-core at {AXE}: `make browser` fetches it from npm")
    chromium.open(pages[name], width, dark=dark)
    chromium.run(OPEN)
    chromium.run(AXE.read_text(encoding="utf-8") + "; 0")
    assert (found := chromium.run(AXE_RUN)) == [], json.dumps(found, indent=1)
    if name == "half":  # the shortest: axe does find what is wrong
        chromium.run("document.querySelector('main').append(document.createElement('img'))")
        assert [rule for rule, *_ in chromium.run(AXE_RUN)] == ["image-alt"]


def test_figures_follow_light_and_dark(chromium: Browser, pages: dict[str, Path]) -> None:
    colour = (
        "getComputedStyle(document.querySelector('svg text')).fill + getComputedStyle(document.body).backgroundColor"
    )
    seen = set()
    for dark in (False, True):
        chromium.open(pages["one"], 1280, dark=dark)
        seen.add(chromium.run(colour))
    assert seen == {"rgb(27, 31, 36)rgb(255, 255, 255)", "rgb(232, 234, 237)rgb(20, 23, 27)"}


def test_numbers_on_the_page_are_those_of_the_results(chromium: Browser, pages: dict[str, Path]) -> None:
    results = json.loads((pages["one"].parents[2] / "alone" / "run" / "results.json").read_text())
    chromium.open(pages["one"], 1280)
    chromium.run(OPEN)
    verdict = chromium.run("document.querySelector('.verdict').innerText")
    first = results["comparisons"][0]
    for value in (first["delta"], *first["ci95"]):
        assert f"{100 * value:+.1f}" in verdict
    rows = chromium.run(
        "[...document.querySelectorAll('table')].find((t) => t.caption.innerText === 'Scores by method')"
        ".innerText.split('\\n').map((line) => line.split('\\t'))"
    )
    shown = {row[0]: row[4:] for row in rows}
    for score in results["scores"]:
        if score["metric"].startswith("nll"):
            expected = f"{score['value']:.3f} [{score['ci95'][0]:.3f}, {score['ci95'][1]:.3f}]"
        else:
            expected = "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * v for v in (score["value"], *score["ci95"])))
        cell = shown[score["task"]][("base", "spd").index(score["method"])]
        assert cell.strip("†") == expected
    forest = chromium.run(TEXTS.format(".three figure:first-child .number"))
    assert forest == [
        "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * v for v in (c["delta"], *c["ci95"])))
        for c in results["comparisons"]
    ]
    flips = chromium.run(TEXTS.format(".three figure:nth-child(2) .number"))
    moved = results["moved"]["answers"]
    assert flips == [f"{row['wrong_to_right']} gained, {row['right_to_wrong']} lost" for row in moved]


def pick(chromium: Browser, **chosen: Any) -> list[str]:
    """Set the filters; what the explorer then shows."""
    chromium.run(
        f"""(() => {{
          const form = document.querySelector('#explorer form');
          for (const [name, value] of Object.entries({json.dumps(chosen)})) form.elements[name].value = value;
          form.dispatchEvent(new Event('input'));
        }})()"""
    )
    names: list[str] = chromium.run(TEXTS.format("#explorer h3"))
    return names


def test_samples_can_be_looked_through(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["one"], 1280)
    chromium.run(OPEN)
    assert len(pick(chromium, task=0)) == 3
    assert pick(chromium, verdict="gained") == ["arithmetic test/0"]
    assert pick(chromium, verdict="lost") == ["arithmetic test/1"]
    assert pick(chromium, verdict="all", model=0, words="SPD SAYS") == [f"arithmetic test/{i}" for i in range(3)]
    assert pick(chromium, words="no such words") == []
    assert chromium.run("document.querySelector('#explorer .count').textContent") == "0 of 3 fit, 0 shown"
    assert len(pick(chromium, task=1, words="", model=1, verdict="all")) == 20
    chromium.run("document.querySelector('#explorer button').click()")
    assert chromium.run("document.querySelectorAll('#explorer .sample').length") == 40
    assert chromium.run("document.querySelector('#explorer button').hidden") is True
    assert len(pick(chromium, verdict="right")) == 20 and pick(chromium, words="Question 7:") == []
    bars = chromium.run(TEXTS.format("#explorer .letters span:nth-child(3n)"))
    assert pick(chromium, words="", verdict="wrong") and bars == []
    pick(chromium, verdict="all", words="Question 0:")
    bars = chromium.run(TEXTS.format("#explorer .letters span:nth-child(3n)"))
    assert bars == ["62.2% (-0.5 nats)", "37.8% (-1 nats)"] * 2
    marks = chromium.run("[...document.querySelectorAll('#explorer ins')].length")
    pick(chromium, task=0, words="")
    assert chromium.run(TEXTS.format("#explorer ins"))[0] == "spd"
    assert marks == 0 and chromium.messages == []


def test_without_script_the_first_twenty_samples_are_there(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["one"], 1280, script=False)
    shown = chromium.call("DOM.getDocument", depth=0)["root"]["nodeId"]
    found = chromium.call("DOM.querySelectorAll", nodeId=shown, selector="#explorer .sample")["nodeIds"]
    assert len(found) == 20
    chromium.call("Emulation.setScriptExecutionDisabled", value=False)


def test_it_prints_whole_with_what_is_folded(chromium: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    for name in NAMES:
        chromium.open(pages[name], A4, 1000)
        chromium.call("Emulation.setEmulatedMedia", media="print", features=[])
        assert chromium.run(WIDER.replace(".scroll, nav", "nav")) == [], "no table or figure is cut"
        heights = chromium.run(
            "[...document.querySelectorAll('.evidence')].map((n) => n.getBoundingClientRect().height)"
        )
        assert heights and min(heights) > 10, "folded parts are printed"
        assert chromium.pdf(tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_the_keyboard_reaches_everything(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.open(pages["one"], 1280)

    def press(key: str, code: int) -> None:
        for kind in ("rawKeyDown", "char", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "char" else {}
            if kind != "char" or text:
                chromium.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    press("Tab", 9)
    assert chromium.run("document.activeElement.className") == "skip"
    chromium.run("document.querySelector('main > section summary').focus()")
    press("Enter", 13)
    assert chromium.run("document.querySelector('main > section details').open") is True
    chromium.run("location.hash = '#samples'")
    assert chromium.run(
        "new Promise((r) => setTimeout(() => r(document.querySelector('#samples').closest('details').open), 50))"
    )
    still = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    chromium.call("Emulation.setEmulatedMedia", media="", features=still)
    assert chromium.run("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
