"""The colours of every figure: Okabe and Ito's, which colour-blind readers tell apart.

Printed in grey only lightness is left, and SKY, ORANGE and GREEN then look alike. So no figure relies on colour alone:
lines differ in dash, points in marker, and the two kinds of mistakes in lightness (BLUE is dark, ORANGE is not).
"""

BLACK, GREY, WHITE = "#000000", "#8c8c8c", "#ffffff"
ORANGE, SKY, GREEN, YELLOW, BLUE, RED = "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00"
MISSED, INVENTED = BLUE, ORANGE
