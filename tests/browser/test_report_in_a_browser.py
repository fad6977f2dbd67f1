"""In a real browser a run's page asks for nothing, fits phone and desk, light and dark, and every word can be read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import searched_on_pixels, train_tiny, write_segmentation
from test_report import everything, searched

import adjcompress as ac
from adjcompress.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
)
PHONE, DESK = 400, 1400
SMALLEST_TEXT = 9.0  # pixels on the screen
CONTRAST = 4.5  # WCAG 2.1, AA

# Every text of the figures on the screen: its words, its box, its size in pixels.
TEXTS = """() => [...document.querySelectorAll('figure svg')].map(svg => {
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  return [...svg.querySelectorAll('text')].map(text => {
    const box = text.getBoundingClientRect();
    return {words: text.textContent, size: parseFloat(getComputedStyle(text).fontSize) * scale,
            left: box.left, right: box.right, top: box.top, bottom: box.bottom};
  });
})"""
# Colours of everything that holds words: [words, colour, background], as the browser gives them.
COLOURS = """() => {
  const background = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (colour !== 'rgba(0, 0, 0, 0)') return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const worded = [...document.querySelectorAll('body *')].filter(element => element.checkVisibility() &&
    [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()));
  return worded.map(element => {
    const style = getComputedStyle(element);
    return [element.textContent.trim().slice(0, 40), element.tagName === 'text' ? style.fill : style.color,
            background(element)];
  });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.fail(f"No browser is installed here: these tests need one of {', '.join(NAMES)} on PATH.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=["widths", "pixels"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, digits: ac.ImageData) -> Iterator[Path]:
    """The page of a run whose widths were searched and of which everything was measured, beside another run; or that of an
    architecture that was searched on labels of pixels."""
    folder, before = tmp_path_factory.mktemp("report"), Path.cwd()
    os.chdir(folder)
    try:
        if request.param == "pixels":
            yield write_report(searched_on_pixels(write_segmentation(folder / "streets"), epochs=3)).resolve()
            return
        run = train_tiny("runs/tiny", digits, epochs=3)
        shutil.copytree(run.folder, "runs/a-run-with-a-long-name-that-goes-on-and-on")
        (run.folder / "deployed.json").write_text(json.dumps(everything(run.folder)))
        searched(run.folder)
        other = ac.open_run(Path("runs/a-run-with-a-long-name-that-goes-on-and-on"))
        yield write_report(run, others=[other]).resolve()
    finally:
        os.chdir(before)


@pytest.fixture(params=[(width, scheme) for width in (PHONE, DESK) for scheme in ("light", "dark")], ids=str)
def page(request: pytest.FixtureRequest, browser: Browser, report: Path) -> Iterator[Page]:
    """The page, open; what it logs or asks for is kept in `page.heard`."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("request", lambda asked: None if asked.url.startswith("data:") else heard.append(f"request: {asked.url}"))
    page.goto(report.as_uri())
    page.heard = heard  # type: ignore[attr-defined]
    yield page
    context.close()


def test_the_page_asks_for_nothing_but_itself_and_logs_nothing(page: Page, report: Path) -> None:
    assert page.heard == [f"request: {report.as_uri()}"]  # type: ignore[attr-defined]


def test_every_figure_is_visible_within_the_page(page: Page) -> None:
    inner, outer = page.evaluate("[document.documentElement.clientWidth, document.documentElement.scrollWidth]")
    assert outer <= inner, "the page scrolls sideways"
    figures = page.locator("figure svg").all()
    assert len(figures) == (13 if "tiny" in page.url else 9)
    for figure in figures:
        box = figure.bounding_box()
        assert box and box["width"] > 0.6 * min(inner, 540) and box["height"] > 20
        assert box["x"] >= 0 and box["x"] + box["width"] <= inner
        assert figure.get_attribute("role") == "img" and figure.get_attribute("aria-label")


def test_text_in_figures_is_large_enough_and_stays_inside(page: Page) -> None:
    width = page.evaluate("document.documentElement.clientWidth")
    texts = [text for figure in page.evaluate(TEXTS) for text in figure]
    assert len(texts) > 60
    for text in texts:
        assert text["size"] >= SMALLEST_TEXT, text
        assert text["left"] >= 0 and text["right"] <= width, text


def test_no_two_texts_of_a_figure_overlap(page: Page) -> None:
    for figure in page.evaluate(TEXTS):
        for index, first in enumerate(figure):
            for second in figure[index + 1 :]:
                beside = first["right"] <= second["left"] + 0.5 or second["right"] <= first["left"] + 0.5
                height = min(first["bottom"], second["bottom"]) - max(first["top"], second["top"])
                assert beside or height < 0.2 * (first["bottom"] - first["top"]), (first, second)


def test_every_word_stands_out_from_its_background(page: Page) -> None:
    found = page.evaluate(COLOURS)
    assert len(found) > 100
    for words, colour, background in found:
        assert contrast(colour, background) >= CONTRAST, (words, colour, background)


def test_the_page_is_as_dark_as_it_is_asked_to_be(page: Page, request: pytest.FixtureRequest) -> None:
    surface = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    is_dark = "dark" in request.node.callspec.id
    assert surface < 0.02 if is_dark else surface > 0.9


def test_it_prints_in_light_on_paper(page: Page) -> None:
    page.emulate_media(media="print")
    assert luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) > 0.99
    for words, colour, background in page.evaluate(COLOURS):
        assert contrast(colour, background) >= CONTRAST, (words, colour, background)
    broken = page.evaluate("[...document.querySelectorAll('figure')].map(figure => getComputedStyle(figure).breakInside)")
    assert set(broken) == {"avoid"}
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_wide_tables_scroll_by_themselves_with_their_first_column_in_place(page: Page) -> None:
    table = page.get_by_role("region", name="Networks")
    before = table.locator("tbody th[scope=row]").first.bounding_box()
    table.evaluate("element => { element.scrollLeft = 10000; }")
    after = table.locator("tbody th[scope=row]").first.bounding_box()
    assert before and after and before["x"] == pytest.approx(after["x"], abs=1)


def luminance(colour: str) -> float:
    """The relative luminance of "rgb(r, g, b)", in [0, 1]."""
    parts: list[float] = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first: Any, second: Any) -> float:
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)
