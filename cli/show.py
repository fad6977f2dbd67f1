"""How does a command say what it found? As tables for people, or as JSON alone."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command has: --json and --quiet."""
    command = click.option("--quiet", is_flag=True, help="No progress and no tables; errors and --json still come.")(command)
    return click.option("as_json", "--json", is_flag=True, help="Standard output is the result as JSON, and nothing else.")(
        command
    )


def show(result: Mapping[str, Any], text: Callable[[], None], as_json: bool, quiet: bool) -> None:
    """Print a result as JSON, or by `text`, or not at all."""
    if as_json:
        click.echo(json.dumps(_told(result), indent=1, allow_nan=False))
    elif not quiet:
        text()


def _told(value: Any) -> Any:
    """What JSON can say: numbers that are none, or have no end, become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _told(part) for name, part in value.items()}
    return [_told(part) for part in value] if isinstance(value, list | tuple) else value


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; the first column left, the others right. Its width does not depend on the terminal."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        drawn.add_column(escape(column), justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        drawn.add_row(*map(escape, row))
    console = Console()
    console.width = max(console.width, console.measure(drawn, options=console.options.update(width=400)).maximum)
    console.print(drawn)


@contextmanager
def working(quiet: bool) -> Iterator[Callable[[str], None]]:
    """A function that tells on standard error what is being done: in one line on a terminal, else a line each."""
    if quiet:
        yield lambda text: None
    elif sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status("working") as status:
            yield lambda text: status.update(text)
    else:
        yield lambda text: click.echo(f"{text[:1].upper()}{text[1:]} ...", err=True)


def warn(text: str) -> None:
    """A warning on standard error."""
    click.secho(f"Warning: {text}", fg="yellow", err=True)


def millions(number: int) -> str:
    """4089184256 -> "4.089 G", 25557032 -> "25.56 M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return str(number)


def percent(part: float) -> str:
    return f"{100 * part:.2f} %"
