"""Checks that speak to the learner: silent about how, plain about what is wrong.

`check_x(my_x)` prints one line when the answer is right. Otherwise it raises AssertionError, whose text names
the mistake. tests/wrong_answers holds answers that each check must refuse, and the words it must use.
"""

from course_lib.checks.machinery import expect
from course_lib.checks.masks import check_count_mistakes, check_to_mask
from course_lib.checks.training import check_training_step
from course_lib.checks.unet import check_unet

__all__ = ["check_count_mistakes", "check_to_mask", "check_training_step", "check_unet", "expect"]
