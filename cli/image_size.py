"""How is the size of images written? 64, or 180x240: height x width."""

from __future__ import annotations

from typing import Any

import click


class ImageSize(click.ParamType):
    """A number of pixels, or height x width -> (height, width); the width of a square is None."""

    name = "pixels"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int | None]:
        if isinstance(value, tuple):
            return value
        height, by, width = str(value).partition("x")
        try:
            return int(height), int(width) if by else None
        except ValueError:
            self.fail(f"{value!r}: a number of pixels such as 64 is expected, or height x width such as 180x240.", param, ctx)
