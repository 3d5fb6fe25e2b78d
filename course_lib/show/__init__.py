"""What does it look like? Figures with their words, the drawn grid, the views that lessons move."""

from course_lib.show.diagram import NAMES, grid
from course_lib.show.figures import (
    LINES,
    View,
    bare,
    canvas,
    display,
    draw_errors,
    draw_overlay,
    error_map,
    forest,
    overlay,
    pixels,
    points,
    training_curve,
)
from course_lib.show.palette import BLACK, BLUE, GREEN, GREY, INVENTED, MISSED, ORANGE, RED, SKY, WHITE, YELLOW

__all__ = [
    "BLACK", "BLUE", "GREEN", "GREY", "INVENTED", "LINES", "MISSED", "NAMES", "ORANGE", "RED", "SKY", "WHITE", "YELLOW",
    "View", "bare", "canvas", "display", "draw_errors", "draw_overlay", "error_map", "forest", "grid", "overlay",
    "pixels", "points", "training_curve",
]  # fmt: skip
