from course_lib.checks import check_average_precision

CHECK, LESSON, EXERCISE = check_average_precision, "12_your_own_data", "average_precision"


def parts(table, threshold):
    tp = int((table > threshold).sum())
    return tp, table.shape[0] - tp, table.shape[1] - tp


def precision(table, threshold):
    tp, fp, _ = parts(table, threshold)
    return tp / max(tp + fp, 1)


def recall(table, threshold):
    tp, _, fn = parts(table, threshold)
    return tp / max(tp + fn, 1)


def dice(table, threshold):
    tp, fp, fn = parts(table, threshold)
    return 2 * tp / (2 * tp + fp + fn)


def or_equal(table, threshold):
    tp = int((table >= threshold).sum())
    return tp / (table.shape[0] + table.shape[1] - tp)


def found_and_true(table, threshold):
    return parts(table, threshold)[0] / sum(table.shape)


def of_all_pairs(table, threshold):
    return (table > threshold).float().mean()


def hits(table, threshold):
    return parts(table, threshold)[0]


def always_half(table, threshold):
    tp, fp, fn = parts(table, 0.5)
    return tp / (tp + fp + fn)


def best_of_each(table, threshold):
    tp = int((table.max(dim=1).values > threshold).sum())  # crashes where nothing is true
    return tp / (sum(table.shape) - tp)


def small_overlaps(table, threshold):
    tp, _, fn = parts(table, threshold)
    fp = int(((table > 0) & (table <= threshold)).sum())
    return tp / (tp + fp + fn)


def in_place(table, threshold):
    table[table <= threshold] = 0
    return parts(table, threshold)[0] / sum(parts(table, threshold))


def mean_iou(table, threshold):
    return table[table > threshold].mean()


def empty_is_perfect(table, threshold):
    return 1.0 if 0 in table.shape else parts(table, threshold)[0] / sum(parts(table, threshold))


def nothing(table, threshold):
    parts(table, threshold)


def hole(table, threshold):
    raise NotImplementedError("your code here")


WRONG = {
    "add fn below": precision,
    "add fp below": recall,
    "that is Dice": dice,
    "not where it is equal": or_equal,
    "counted twice below": found_and_true,
    "not a share of pairs": of_all_pairs,
    r"that is tp: divide": hits,
    "at threshold 0.75 one pair is left": always_half,
    "two found, none true it stops": best_of_each,
    "the score is 2/5": mean_iou,
    "fp is no number of small overlaps": small_overlaps,
    "the table itself has changed": in_place,
    "nothing found, two true the score is 0": empty_is_perfect,
    "it returns nothing": nothing,
    "hole is not written yet": hole,
}
