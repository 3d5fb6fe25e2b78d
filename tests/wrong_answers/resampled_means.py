import numpy as np

from course_lib.checks import check_resampled_means

CHECK, LESSON, EXERCISE = check_resampled_means, "10_the_verdict", "resampled_means"


def without_replacement(differences, draws, generator):
    return np.array([generator.permutation(differences).mean() for _ in range(draws)])


def single_images(differences, draws, generator):
    return generator.choice(differences, draws)


def half_as_many(differences, draws, generator):
    return generator.choice(differences, (draws, len(differences) // 2)).mean(1)


def twice_as_many(differences, draws, generator):
    return generator.choice(differences, (draws, 2 * len(differences))).mean(1)


def sums(differences, draws, generator):
    return generator.choice(differences, (draws, len(differences))).sum(1)


def mean_of_everything(differences, draws, generator):
    return generator.choice(differences, (draws, len(differences))).mean()


def wrong_axis(differences, draws, generator):
    return generator.choice(differences, (draws, len(differences))).mean(0)


def centred(differences, draws, generator):
    return generator.choice(differences - differences.mean(), (draws, len(differences))).mean(1)


def own_generator(differences, draws, generator):
    return np.random.default_rng(0).choice(differences, (draws, len(differences))).mean(1)


def global_generator(differences, draws, generator):
    at = np.random.default_rng().integers(len(differences), size=(draws, len(differences)))
    return differences[at].mean(1)


def last_image_never(differences, draws, generator):
    differences = np.sort(differences)
    return differences[generator.integers(len(differences) - 9, size=(draws, len(differences)))].mean(1)


def medians(differences, draws, generator):
    return np.median(generator.choice(differences, (draws, len(differences))), axis=1)


def one_draw_repeated(differences, draws, generator):
    return np.full(draws, generator.choice(differences, len(differences)).mean())


def nothing(differences, draws, generator):
    generator.choice(differences, (draws, len(differences))).mean(1)


def hole(differences, draws, generator):
    raise NotImplementedError("your code here")


WRONG = {
    "an image may be drawn twice": without_replacement,
    "these are single images": single_images,
    "the means vary too much: draw as many": half_as_many,
    "the means vary too little": twice_as_many,
    "sums came out": sums,
    "a mean for every draw": mean_of_everything,
    "4000 draws give 4000 means": wrong_axis,
    "the means lie around zero": centred,
    "another generator gives the same draws": own_generator,
    "the same generator gives other draws": global_generator,
    "is every image as likely": last_image_never,
    "the means vary too much|is every image as likely": medians,
    "all means are the same": one_draw_repeated,
    "it returns nothing": nothing,
    "hole is not written yet": hole,
}
