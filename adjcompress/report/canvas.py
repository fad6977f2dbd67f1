"""How does a matplotlib figure become a piece of the page, in its colours, its type and its size?

Figures are drawn in units of one CSS pixel, WIDTH wide, with stand-in colours; in the SVG these become the page's CSS
variables, so that a figure follows light, dark and print. Text stays text, in the page's own type.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

WIDTH = 420
TEXT = 11.5  # on a phone of 400 px the figure is 368 px wide, and this 10 px
INK, MUTED, RULE, GHOST, SURFACE = "#010101", "#020202", "#030303", "#040404", "#050505"
FULL = "#060606"
SMALLS = ("#070707", "#080808", "#090909", "#0a0a0a", "#0b0b0b", "#0c0c0c")
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    GHOST: "--ghost",
    SURFACE: "--surface",
    FULL: "--full",
    **{color: f"--small-{index}" for index, color in enumerate(SMALLS, 1)},
}
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "adjcompress",  # else ids are drawn at random
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with two dollar signs is a name
    "font.size": TEXT,
    "text.color": INK,
    "axes.unicode_minus": True,
    "path.simplify": False,
}


def css(color: str) -> str:
    """The page's own name for one of the colours that figures are drawn in."""
    return f"var({_VARIABLES[color]})"


_XLINK = "{http://www.w3.org/1999/xlink}href"


def drawing(label: str, height: float, paint: Callable[[Figure], None]) -> str:
    """An SVG element with what `paint` draws on a figure of WIDTH by `height` pixels; `label` is read out in its place.

    The same drawing gives the same text, whatever style a user has set for matplotlib.
    """
    with _own_style():
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
        paint(figure)
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    return _inlined(written.getvalue(), label)


def panel(figure: Figure, left: float, bottom: float, right: float, top: float) -> Axes:
    """Axes with these margins in pixels: a light grid to read values by, and no frame."""
    width, height = figure.get_size_inches() * 72
    axes = figure.add_axes((left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height))
    axes.patch.set_visible(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(which="both", length=0, pad=6, labelsize=TEXT, labelcolor=MUTED)
    axes.set_axisbelow(True)
    return axes


def text_width(text: str, bold: bool = False) -> float:
    """Pixels that a line of text takes, at most: the page's types are narrower than the one it is measured in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that this type lacks
        font = FontProperties(family="DejaVu Sans", size=TEXT, weight="bold" if bold else "normal")
        return TextToPath().get_text_width_height_descent(text, font, ismath=False)[0]


@contextmanager
def _own_style() -> Iterator[None]:
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def _inlined(document: str, label: str) -> str:
    """A matplotlib SVG document as an element for HTML: no namespaces, fonts or notes, and ids that no other figure has."""
    root = ElementTree.fromstring(document)
    prefix = "f" + hashlib.sha256((label + document).encode()).hexdigest()[:8]
    for parent in root.iter():
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    names: dict[str, str] = {}
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        if _XLINK in element.attrib:
            element.set("href", element.attrib.pop(_XLINK))
        if element.tag in ("path", "clipPath") and "id" in element.attrib:
            names[element.attrib["id"]] = f"{prefix}-{len(names)}"
            element.set("id", names[element.attrib["id"]])
        else:
            element.attrib.pop("id", None)
    for element in root.iter():
        for key, value in element.attrib.items():
            element.set(key, _attribute(key, value, names))
    for key in ("version", "width", "height"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def _attribute(key: str, value: str, names: dict[str, str]) -> str:
    if key in ("href", "clip-path"):
        return re.sub(r"#(\w+)", lambda found: f"#{names[found[1]]}", value)
    if key == "style":
        value = re.sub(r"font-family:[^;]*;?|font: (?=\d)", "", value)
        return re.sub(r"#[0-9a-f]{6}", lambda found: css(found[0]), value)
    if key in ("d", "x", "y", "width", "height", "transform", "points"):
        return re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), value)
    return value
