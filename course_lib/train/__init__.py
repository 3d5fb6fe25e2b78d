"""How does a net learn? `fit` is the loop of lesson 04, and `Recipe` decides what it reaches.
Beside it stand the random changes to images (`augment`), the files from which a training goes on and a model comes
back (`checkpoint`), and one training in several processes (`distributed`).
"""

from course_lib.train.loop import Recipe, Row, batches, evaluate, fit, make_optimiser, one_cycle, validate

__all__ = ["Recipe", "Row", "batches", "evaluate", "fit", "make_optimiser", "one_cycle", "validate"]
