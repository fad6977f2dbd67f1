"""How are figures written for people?"""

from __future__ import annotations

MINUS, TIMES, UNKNOWN = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"
SPACE = "\N{NO-BREAK SPACE}"  # between a figure and its unit
_DIGITS = 3
_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def quantity(number: float | None, unit: str = "") -> str:
    """11227812 -> "11.2 M"; with a unit, "44.9 MB". A dash for what is not known."""
    if number is None:
        return UNKNOWN
    for size, prefix in _UNITS:
        if abs(number) >= size * (1 - 0.5 * 10**-_DIGITS):
            return f"{significant(number / size)}{SPACE}{prefix}{unit}"
    return f"{significant(number)}{SPACE}{unit}".rstrip()


def significant(number: float, digits: int = _DIGITS) -> str:
    """That many digits, in exponents only where there would be many zeros: 0.2582 -> "0.258", 145.77 -> "146"."""
    if number == 0:
        return "0"
    if abs(number) >= 10 ** (digits - 1):
        return f"{number:,.0f}"
    return f"{number:#.{digits}g}" if abs(number) >= 1e-3 else f"{number:.{digits}g}"


def milliseconds(number: float | None) -> str:
    return UNKNOWN if number is None else f"{significant(number)}{SPACE}ms"


def percent(part: float | None) -> str:
    """0.35139 -> "35.14 %"."""
    return UNKNOWN if part is None else f"{100 * part:.2f}{SPACE}%"


def times(number: float | None) -> str:
    """A ratio: "3.35" and the sign for times."""
    return UNKNOWN if number is None else f"{significant(number)}{TIMES}"


def points(number: float) -> str:
    """A difference of accuracies in percentage points, with its sign even where there is none: "±0.00 points"."""
    text = f"{abs(number):.2f}"
    sign = "±" if float(text) == 0 else (MINUS if number < 0 else "+")
    return f"{sign}{text}{SPACE}points"


def duration(seconds: float) -> str:
    """622 -> "10 min 22 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def counted(number: int, one: str, many: str | None = None) -> str:
    """(1, "thread") -> "1 thread", (2, "thread") -> "2 threads"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def enumeration(items: list[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    return " and ".join(part for part in (", ".join(items[:-1]), *items[-1:]) if part)


def printable(text: object) -> str:
    """Text from a file as one line that any page and figure can hold: what cannot be printed becomes a replacement mark."""
    spaced = "".join(" " if letter.isspace() else letter for letter in str(text))
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in spaced)


def elided(text: str, letters: int) -> str:
    """At most `letters` letters, the end kept: that is where names of layers and files differ."""
    return text if len(text) <= letters else "…" + text[len(text) - letters + 1 :]
