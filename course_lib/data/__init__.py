"""Which images, and which mask belongs to each? Data sets by name or folder, prepared once, cached, split by id."""

from course_lib.data.sets import (
    DEAL,
    PREPARATION,
    SOURCES,
    TILE,
    Prepared,
    Sample,
    Source,
    Split,
    Splits,
    best_at_hand,
    find_samples,
    join,
    load,
    look_of,
    prepare,
    split,
)

__all__ = [
    "DEAL",
    "PREPARATION",
    "SOURCES",
    "TILE",
    "Prepared",
    "Sample",
    "Source",
    "Split",
    "Splits",
    "best_at_hand",
    "find_samples",
    "join",
    "load",
    "look_of",
    "prepare",
    "split",
]
