"""How does one seed give many independent ones?"""

from __future__ import annotations

import zlib

import numpy as np


def derived_seed(purpose: str, *parts: int | str) -> int:
    """One 32-bit seed for a purpose from several numbers (0 or more) and names; different arguments give unrelated seeds.

    32 bits, because torch's CPU generator uses no more of a seed.
    """
    numbers = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in (purpose, len(parts), *parts)]
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
