"""The colours of every figure: Okabe and Ito's, which colour-blind readers tell apart.

Printed in grey only lightness is left, and SKY, ORANGE and GREEN then look alike. So no figure relies on colour alone:
lines differ in dash, points in marker, and the two kinds of mistakes in lightness (BLUE is dark, ORANGE is not).
"""

BLACK, GREY, WHITE = "#000000", "#8c8c8c", "#ffffff"
ORANGE, SKY, GREEN, YELLOW, BLUE, RED = "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00"
MISSED, INVENTED = BLUE, ORANGE


def rgb(colour: str) -> tuple[float, float, float]:
    """ "#0072b2" -> red, green, blue, each in 0..1."""
    return tuple(int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5))


def grey(colour: str) -> float:
    """How light a colour is when printed without colour, 0 black to 1 white (luma, ITU-R BT.601)."""
    red, green, blue = rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue
