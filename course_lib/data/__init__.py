"""Which images, and which mask belongs to each? Drawn, or by name or folder; prepared once, cached, split by id."""

from course_lib.data.cache import SOURCES, Source, best_at_hand, licence_of
from course_lib.data.sections import CLASSES as SECTIONS
from course_lib.data.sections import SHRINK
from course_lib.data.sets import Split, Splits, draw, join, load, look_of, split

__all__ = [
    "SECTIONS", "SHRINK", "SOURCES", "Source", "Split", "Splits", "best_at_hand", "draw", "join", "licence_of",
    "load", "look_of", "split",
]  # fmt: skip
