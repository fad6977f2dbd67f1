"""Which command is run? Each is imported when it is called, so that help answers at once."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_COMMANDS = {
    "train": "Train a network and the small ones inside it.",
    "extract": "Cut the small network out of a run.",
    "export": "Turn a package into an ONNX file.",
    "bench": "Measure networks side by side.",
    "report": "Write a run as one HTML page.",
}


class Commands(click.Group):
    """Imports a command when it is called, and prints a user's errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return getattr(importlib.import_module(f"adjcompress_cli.{cmd_name}"), cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # a model of the user's own is importable here; last: it shadows no library
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            from adjcompress.errors import AdjCompressError, ToldElsewhere  # loads torch: not before it is needed

            if isinstance(error, ToldElsewhere):
                raise click.exceptions.Exit(1) from error
            if isinstance(error, AdjCompressError):
                raise click.ClickException(str(error)) from error
            raise


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="adjcompress")
def main() -> None:
    """Make convolutional networks small and fast, with proof.

    \b
    Example, on the data that comes with it:
      adjcompress train                  data -> runs/<name>, one set of weights with several networks in it
      adjcompress extract --alpha 8      run -> small-alpha8.safetensors, a dense network
      adjcompress export model.onnx      -> ONNX, compared with torch before it is put in place
      adjcompress bench                  -> parameters, MACs, bytes, latency beside the full network
      adjcompress report                 -> one page with curves, costs, latencies, certificates

    Each command takes the newest thing that the one before it made, unless told otherwise.
    """


def given(ctx: click.Context, name: str) -> bool:
    """Whether the user named an option, and did not leave it at its default."""
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def refuse_without(option: str, *names: str) -> None:
    """Refuse options of the running command that do nothing unless `option` is given."""
    _refuse(names, lambda said: f"{said} belongs to {option}: give {option} as well, or leave it out.")


def refuse_with(option: str, *names: str) -> None:
    """Refuse options of the running command that `option` settles."""
    _refuse(names, lambda said: f"{said} is settled by {option}: leave one of them out.")


def _refuse(names: tuple[str, ...], text: Callable[[str], str]) -> None:
    ctx = click.get_current_context()
    for name in names:
        if given(ctx, name):
            raise click.ClickException(text(f"--{name.replace('_', '-')}"))
