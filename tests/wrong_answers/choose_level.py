from course_lib.checks import check_choose_level

CHECK, LESSON, EXERCISE = check_choose_level, "08_pruning", "choose_level"


def best(scores, tolerance):
    return max(scores, key=scores.get)


def largest_within(scores, tolerance):
    return max(level for level in scores if scores[level] >= max(scores.values()) - tolerance)


def strictly(scores, tolerance):
    return min(level for level in scores if scores[level] > max(scores.values()) - tolerance - 1e-12 * (tolerance == 0))


def below_the_deepest(scores, tolerance):
    return min(level for level in scores if scores[level] >= scores[max(scores)] - tolerance)


def counts_from_zero(scores, tolerance):
    values = [scores[level] for level in sorted(scores)]
    return next(n for n, value in enumerate(values) if value >= max(values) - tolerance)


def score_instead_of_level(scores, tolerance):
    return min(value for value in scores.values() if value >= max(scores.values()) - tolerance)


def first_in_the_dict(scores, tolerance):
    return next(level for level in scores if scores[level] >= max(scores.values()) - tolerance)


def from_the_deep_end(scores, tolerance):
    """Stops at the first level that is not close enough, and misses a smaller one that is."""
    level = max(scores)
    while level - 1 in scores and scores[level - 1] >= max(scores.values()) - tolerance:
        level -= 1
    return level


def while_it_pays(scores, tolerance):
    """The next level must bring more than the tolerance."""
    level = min(scores)
    while level + 1 in scores and scores[level + 1] - scores[level] > tolerance:
        level += 1
    return level


def relative(scores, tolerance):
    return min(level for level in scores if scores[level] >= max(scores.values()) * (1 - tolerance) - 1e-12)


def always_two(scores, tolerance):
    return 2


def forgets_to_return(scores, tolerance):
    best(scores, tolerance)


def empties_the_scores(scores, tolerance):
    level = largest_within(scores, tolerance)
    scores.clear()
    return level


def hole(scores, tolerance):
    raise NotImplementedError("your code here")


WRONG = {
    "the best level is taken whatever it costs": best,
    "the largest level within the tolerance": largest_within,
    "exactly `tolerance` below the best": strictly,
    "measured from the deepest level": below_the_deepest,
    "levels count from 1": counts_from_zero,
    "a level is a whole number, not 0.8": score_instead_of_level,
    "depends on the order of the scores": first_in_the_dict,
    "level 1 is close enough here although level 2 is not": from_the_deep_end,
    "small steps add up: 0.90 is 0.03 below": while_it_pays,
    "taken as a share of the best score": relative,
    "tolerance 0.0: level 3 is the smallest": always_two,
    "it returns nothing": forgets_to_return,
    "the scores that were given are changed": empties_the_scores,
    "hole is not written yet": hole,
}
