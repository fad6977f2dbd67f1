"""How is the size of images written? 64, or 180x240: height x width."""

from __future__ import annotations

from typing import Any, NamedTuple

import click


class Size(NamedTuple):
    """Height and width in pixels; the width of a square is None."""

    height: int
    width: int | None

    def __str__(self) -> str:
        return str(self.height) if self.width is None else f"{self.height}x{self.width}"


class ImageSize(click.ParamType):
    """A number of pixels, or height x width -> Size."""

    name = "pixels"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        if isinstance(value, Size):
            return value
        height, by, width = str(value).partition("x")
        try:
            return Size(int(height), int(width) if by else None)
        except ValueError:
            self.fail(f"{value!r}: a number of pixels such as 64 is expected, or height x width such as 180x240.", param, ctx)
