"""What is said to a user who can mend what went wrong?"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


class AdjCompressError(Exception):
    """Something that a user's option, file, model or machine caused: the value, the rule it breaks, and the fix.

    The text is one line. The command line prints it without a traceback and exits with 1; a bug keeps its traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class ToldElsewhere(AdjCompressError):
    """The same error as the first of several processes has, which tells it."""


def first_line(error: BaseException) -> str:
    """The first line of what another library's error says, at most 160 characters; its name, where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def shortened(names: Sequence[str], most: int = 8) -> str:
    """The names in one line, the rest as a number: "a, b and 3 more"; "none" for none."""
    if not names:
        return "none"
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


_LISTED = 12


def nearest_first(name: str, choices: Iterable[str]) -> list[str]:
    """The choices, those spelt most like `name` first, the others in their own order."""
    names = list(choices)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return close + [choice for choice in names if choice not in close]


def pick(table: Mapping[str, T], name: str, what: str) -> T:
    """The entry of `table` called `name`; an error that lists the choices, nearest first, where there is none."""
    check_choice(table, name, what)
    return table[name]


def check_choice(choices: Collection[str], name: str, what: str) -> None:
    """Refuse a name that is none of the choices, which the error lists, nearest first; of very many the nearest."""
    if name not in choices:
        shown = nearest_first(name, choices)
        rest = f" and {len(shown) - _LISTED} more" if len(shown) > 2 * _LISTED else ""
        shown = shown[:_LISTED] if rest else shown
        raise AdjCompressError(f"{what} {name!r} is unknown. Choices: {', '.join(shown)}{rest}.")
