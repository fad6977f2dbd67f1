"""No figure in a page is typed by hand, and every result says how it was made."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


def test_every_table_shows_the_results_that_are_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import tables

    for path, text in tables.pages().items():
        assert path.read_text() == text, f"{path.name}: run python benchmarks/tables.py --write"
    del sys.modules["tables"]


PAGES = [ROOT / "README.md", *sorted((ROOT / "examples").glob("*.md")), *sorted((ROOT / "benchmarks" / "results").glob("*.md"))]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text())
    for target in targets:
        assert target.startswith("https://") or (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_a_page_stand_in_blocks(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert not re.findall(r"^(?:adjcompress|python|make|pip|torchrun) .*", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("page", "script"),
    [
        ("dan", "dan_page"),
        ("accuracy", "accuracy_page"),
        ("claims", "claims"),
        ("vs_torch_pruning", "vs_torch_pruning_page"),
        ("substitutes", "substitutes"),
        ("supernets", "supernet_sweep"),
    ],
)
def test_a_page_shows_the_results_that_are_committed(page: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    render = importlib.import_module(script).page
    folder = ROOT / "benchmarks" / "results"
    if script in ("substitutes", "supernet_sweep"):
        figures = json.loads((folder / f"{page}.json").read_text())["figures"]
        shown = render(figures) if script == "substitutes" else render(page, figures)
    else:
        shown = render()
    assert (folder / f"{page}.md").read_text() == shown, f"run the benchmark that writes {page}.md again"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_names_its_command_machine_versions_and_repetitions(path: Path) -> None:
    result = json.loads(path.read_text())
    script = result["command"].split()[1]
    assert (ROOT / script).is_file()
    assert result["machine"]["versions"]["torch"] and result["machine"]["cpu"] and result["repetitions"]
    assert not any(word.startswith(("/", "~", "..")) for word in shlex.split(result["command"]))
