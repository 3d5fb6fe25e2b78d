"""How does a net learn? The loop, the changes to its images, the file from which a training goes on."""

from course_lib.train.loop import Recipe, Row, batches, evaluate, fit, make_optimiser, one_cycle, validate

__all__ = ["Recipe", "Row", "batches", "evaluate", "fit", "make_optimiser", "one_cycle", "validate"]
