import statistics

from course_lib.checks import check_median_seconds

CHECK, LESSON, EXERCISE = check_median_seconds, "09_fast_on_a_gpu", "median_seconds"


def right(run, finish, clock, repeats, warm_up, *, before=True, behind=True, skip=True, middle=statistics.median):
    seconds = []
    for _ in range(warm_up + repeats):
        if before:
            finish()
        start = clock()
        run()
        if behind:
            finish()
        seconds.append(clock() - start)
    return middle(seconds[warm_up:] if skip else seconds)


def never_waits(run, finish, clock, repeats, warm_up):
    return right(run, finish, clock, repeats, warm_up, before=False, behind=False)


def waits_before_only(run, finish, clock, repeats, warm_up):
    return right(run, finish, clock, repeats, warm_up, behind=False)


def waits_behind_only(run, finish, clock, repeats, warm_up):
    return right(run, finish, clock, repeats, warm_up, before=False)


def mean(run, finish, clock, repeats, warm_up):
    return right(run, finish, clock, repeats, warm_up, middle=statistics.fmean)


def warm_up_counts(run, finish, clock, repeats, warm_up):
    return right(run, finish, clock, repeats, warm_up, skip=False, middle=statistics.fmean)


def no_warm_up(run, finish, clock, repeats, warm_up):
    return right(run, finish, clock, repeats, 0)


def whole_loop(run, finish, clock, repeats, warm_up):
    for _ in range(warm_up):
        run()
    finish()
    start = clock()
    for _ in range(repeats):
        run()
    finish()
    return clock() - start


def mean_of_the_loop(run, finish, clock, repeats, warm_up):
    return whole_loop(run, finish, clock, repeats, warm_up) / repeats


def list_of_all(run, finish, clock, repeats, warm_up):
    return right(run, finish, clock, repeats, warm_up, middle=list)


def no_clock(run, finish, clock, repeats, warm_up):
    for _ in range(warm_up + repeats):
        run()
    finish()
    return 1.001


def nothing(run, finish, clock, repeats, warm_up):
    right(run, finish, clock, repeats, warm_up)


def hole(run, finish, clock, repeats, warm_up):
    raise NotImplementedError("your code here")


WRONG = {
    "only the handing over was timed": never_waits,
    "only the handing over was timed: call": waits_before_only,
    "work that was there before": waits_behind_only,
    "take the median, not the mean": mean,
    "do not count the warm-up|take the median": warm_up_counts,
    "5 runs were made": no_warm_up,
    "slow first runs|5.00": whole_loop,
    "one slow run among five": mean_of_the_loop,
    "one number is wanted": list_of_all,
    "the clock is never read": no_clock,
    "it returns nothing": nothing,
    "hole is not written yet": hole,
}
