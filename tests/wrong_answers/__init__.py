"""Answers that each check must refuse. A module per check: CHECK, LESSON, EXERCISE and WRONG.

WRONG maps a pattern, which the message must match, to the wrong answer. One mistake each, all of them plausible.
"""
