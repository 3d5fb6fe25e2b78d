"""Draws microscope images of cell nuclei whose instance labels are known: the built-in data of the course.

They come about as under a microscope: nuclei are laid out, stained and lit, blurred, recorded by a noisy camera.
Lengths are fractions of the image's side, so only the camera's noise stays one pixel wide at every size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from skimage.color import rgb_from_hed
from skimage.filters import gaussian
from skimage.measure import label

from course_lib.errors import UserError

MIN_PIXELS = 8  # of every nucleus at least so many pixels show
MIN_RADIUS = 2.0  # pixels
MIN_SIZE = 16  # pixels
Rng = np.random.Generator


@dataclass
class Scene:
    """Nuclei in place, before any light falls on them."""

    labels: np.ndarray  # int32 (size, size): whose pixel it is
    dye: np.ndarray  # float (size, size): about 1 in a well stained nucleus
    spots: list[tuple[np.ndarray, float]]  # centre (row, column) and radius of each nucleus, in pixels
    direction: float  # radians: elongated things tend to lie along it


@dataclass(frozen=True)
class Look:
    """One kind of image. Pairs are ranges to draw from; lengths are fractions of the image's side."""

    paint: Callable[[Rng, Scene], np.ndarray]  # -> light (size, size, 1 or 3), 0 dark to 1 full scale
    number: tuple[int, int]  # nuclei tried per image; drawn on a log scale, so many images are sparse
    radius: tuple[float, float]  # typical radius of an image's nuclei
    core: tuple[float, float]  # dye in a nucleus's middle relative to its rim: below 1 hollow, above 1 a dome
    blur: tuple[float, float]  # of the whole image, standard deviation
    together: tuple[float, float] = (0.1, 0.8)  # share of an image's nuclei that are set beside another


def turn(x: np.ndarray, y: np.ndarray, direction: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along and across a direction (radians)."""
    return x * np.cos(direction) + y * np.sin(direction), y * np.cos(direction) - x * np.sin(direction)


def clouds(rng: Rng, size: int, *, grain: float, stretch: float = 1.0, direction: float = 0.0) -> np.ndarray:
    """Random texture (size, size), mean 0, variance 1: `grain` of the side wide, `stretch` times as long."""
    x, y = np.fft.rfftfreq(size, 1 / size), np.fft.fftfreq(size, 1 / size)[:, None]  # waves per side
    along, across = turn(x, y, direction)
    weight = (1 + (2 * grain) ** 2 * ((stretch * along) ** 2 + across**2)) ** -1.5
    weight[0, 0] = 0
    field = np.fft.irfft2(weight * np.fft.rfft2(rng.standard_normal((size, size))), s=(size, size))
    return field / field.std()


def outline(rng: Rng, size: int, *, centre, axes, direction=0.0, wobble=0.07) -> tuple[tuple[slice, slice], np.ndarray]:
    """An irregular ellipse: a window around it and, there, the distance from its centre (1 on the outline).

    Of its two semi-axes (pixels) the first lies along `direction` (radians).
    """
    long, short = axes
    (top, left), (bottom, right) = np.clip([centre - 1.6 * long - 2, centre + 1.6 * long + 3], 0, size).astype(int)
    x, y = np.arange(left, right) - centre[1], np.arange(top, bottom)[:, None] - centre[0]
    along, across = turn(x, y, direction)
    point = along / long + 1j * across / short  # the ellipse is now the unit circle
    distance = np.abs(point)
    # The edge is a Fourier series in the angle a: powers of e^{ia}, waves 2 to 6, the fast ones weak.
    waves = rng.normal(0, wobble, (2, 5)) / [5, 4, 3, 2, 1]
    edge = 1 + np.polyval([*(waves[0] + 1j * waves[1]), 0, 0], point / np.maximum(distance, 1e-6)).real
    return (slice(top, bottom), slice(left, right)), distance / np.maximum(edge, 0.4)


def cover(distance: np.ndarray, radius: float) -> np.ndarray:
    """Share of each pixel inside an outline: 0 to 1, a ramp of one pixel across the edge."""
    return np.clip((1 - distance) * radius + 0.5, 0, 1)


def scatter(rng: Rng, size: int, *, number: int, radius: float, wobble: float = 0.07) -> np.ndarray:
    """Up to `number` things that are no nuclei, of up to `radius` of the side: debris, other cells."""
    canvas = np.zeros((size, size))
    for _ in range(rng.integers(number + 1)):
        r = size * radius * rng.uniform(0.3, 1)
        window, distance = outline(rng, size, centre=rng.uniform(0, size, 2), axes=(r, r), wobble=wobble)
        canvas[window] += rng.uniform(0.4, 1.2) * cover(distance, r)
    return canvas


def find_place(rng: Rng, size: int, *, radius: float, spots: list, together: float) -> np.ndarray:
    """A centre (row, column) anywhere, or with probability `together` where it touches an earlier nucleus."""
    if not spots or rng.random() > together:
        return rng.uniform(0, size, 2)
    (centre, its_radius), angle = spots[rng.integers(len(spots))], rng.uniform(0, 2 * np.pi)
    return centre + rng.uniform(0.85, 1.15) * (radius + its_radius) * np.array([np.sin(angle), np.cos(angle)])


def lay_out(rng: Rng, size: int, look: Look) -> Scene:
    """Nuclei one behind the other: an earlier one hides a later one, and each shows as one piece."""
    labels, layers, spots = np.zeros((size, size), np.int32), np.zeros((2, size, size)), []
    number, typical = int(np.exp(rng.uniform(*np.log(look.number)))), size * rng.uniform(*look.radius)
    together, slender, unfocused = rng.uniform(*look.together), rng.uniform(0.05, 0.7), rng.uniform(0, 0.4)
    direction, disorder = rng.uniform(0, np.pi), rng.choice([0.2, 1.5])
    chromatin = 1 + rng.uniform(0.05, 0.3) * clouds(rng, size, grain=0.3 * typical / size)
    while number > 0 or not spots:
        number -= 1
        radius = max(MIN_RADIUS, typical * rng.lognormal(0, 0.22))
        centre = find_place(rng, size, radius=radius, spots=spots, together=together)
        long, lies = 1.1 + slender * rng.lognormal(0, 0.5), rng.normal(direction, disorder)
        axes = radius * long**0.5, radius / long**0.5
        window, distance = outline(rng, size, centre=centre, axes=axes, direction=lies)
        inside = distance < 1
        shows = inside & (labels[window] == 0)
        if shows.sum() < max(MIN_PIXELS, 0.75 * inside.sum()) or label(shows, connectivity=1).max() != 1:
            continue
        spots.append((centre, radius))
        labels[window][shows] = len(spots)
        core = rng.uniform(*look.core)
        dye = rng.lognormal(0, 0.28) * (core + (1 - core) * np.minimum(distance, 1) ** 3)
        dye *= np.maximum(chromatin[window], 0.2) * cover(distance, radius)
        dye[inside & ~shows] *= 0.3  # nuclei flatten against each other more than they overlap
        layers[int(rng.random() < unfocused)][window] += dye
    return Scene(labels, layers[0] + gaussian(layers[1], 0.18 * typical), spots, direction)


def fluorescence(rng: Rng, scene: Scene) -> np.ndarray:
    """Nuclei glow on black, in a haze from above and below the focus, among bright specks."""
    size = len(scene.dye)
    spread = rng.uniform(0.1, 0.5)
    ground = rng.uniform(0.02, 0.15) * np.maximum(1 + 0.3 * clouds(rng, size, grain=0.3), 0)
    specks = scatter(rng, size, number=14, radius=0.02) * rng.uniform(0.5, 2)
    ghosts = scatter(rng, size, number=2, radius=0.2) * 0.1  # cells far out of focus
    haze = gaussian(spread * scene.dye + ghosts, 0.07 * size)
    exposure = 10 ** rng.uniform(-0.6, -0.1)
    return exposure * (scene.dye + haze + ground + specks)[..., None]


def brightfield(rng: Rng, scene: Scene) -> np.ndarray:
    """Grey cells on a bright ground: each nucleus lies in a cell; dark debris lies anywhere."""
    size = len(scene.dye)
    cells = scatter(rng, size, number=3, radius=0.2, wobble=0.1) * 0.3  # some show no nucleus
    for centre, radius in scene.spots:
        r, aside = radius * rng.uniform(2.2, 4), rng.normal(0, 0.6 * radius, 2)
        window, distance = outline(rng, size, centre=centre + aside, axes=(r, r), wobble=0.1)
        cells[window] += rng.uniform(0.05, 0.3) * cover(distance, r)
    cells *= np.maximum(1 + 0.12 * clouds(rng, size, grain=0.02), 0)
    debris = scatter(rng, size, number=25, radius=0.02) * rng.uniform(0.2, 1)
    ground = 0.02 * clouds(rng, size, grain=0.1)
    return 0.9 * np.exp(-(1.2 * scene.dye + cells + debris + ground))[..., None]


def tissue(rng: Rng, scene: Scene) -> np.ndarray:
    """A stained section: violet nuclei among pink fibres, red cells, smudges and gaps.

    Stains absorb by the Beer-Lambert law with the colours of Ruifrok and Johnston, 2001.
    """
    size = len(scene.dye)
    fibres = clouds(rng, size, grain=0.06, stretch=rng.uniform(2, 8), direction=scene.direction)
    filled = 1 - np.clip(2 * clouds(rng, size, grain=0.5) - rng.uniform(0.6, 4), 0, 1)
    eosin = rng.uniform(0.1, 0.4) * np.maximum(1 + 0.3 * fibres + 0.3 * clouds(rng, size, grain=0.4), 0.1) * filled
    eosin += scatter(rng, size, number=6, radius=0.06, wobble=0.03) * rng.uniform(0.2, 0.6) + 0.4 * scene.dye
    smudges = rng.uniform(0, 0.2) * np.maximum(clouds(rng, size, grain=0.1), 0) * filled
    haematoxylin = rng.uniform(0.8, 1.6) * scene.dye + smudges
    colours = rgb_from_hed[:2] * np.clip(rng.normal(1, 0.12, (2, 3)), 0.6, 1.4)  # no two laboratories agree
    colours[1] += rng.choice([0, 0.6]) * (colours[0] - colours[1])  # some sections are violet all over
    return 0.93 * np.exp(-np.stack([haematoxylin, eosin], axis=-1) @ colours)


LOOKS = {
    "fluorescence": Look(fluorescence, number=(4, 45), radius=(0.04, 0.09), core=(0.8, 1.3), blur=(0.005, 0.012)),
    "brightfield": Look(brightfield, (5, 40), (0.035, 0.065), (0.7, 1.2), (0.005, 0.01), together=(0, 0.4)),
    "tissue": Look(tissue, (10, 70), (0.045, 0.09), (0.4, 1.1), (0.005, 0.012)),
    "small-sharp": Look(fluorescence, (20, 100), (0.025, 0.04), (0.9, 1.3), (0.003, 0.006)),
    "large-blurred": Look(tissue, (3, 14), (0.12, 0.22), (0.3, 0.9), (0.01, 0.025)),
}


def illuminate(rng: Rng, light: np.ndarray) -> np.ndarray:
    """No lamp is even: a tilt across the field and a fall-off to the corners."""
    x = np.linspace(-1, 1, len(light))
    along, across = turn(x, x[:, None], rng.uniform(0, 2 * np.pi))
    lamp = 1 + rng.uniform(0, 0.3) * along - rng.uniform(0, 0.15) * (along**2 + across**2)
    return light * lamp[..., None]


def record(rng: Rng, light: np.ndarray) -> np.ndarray:
    """uint8 (size, size, 3): photons arrive at random (Poisson), reading adds noise, 8 bits remain."""
    photons, reading = 10 ** rng.uniform(2.7, 3.8), rng.uniform(0.002, 0.01)
    signal = rng.poisson(np.maximum(light, 0) * photons) / photons + rng.normal(0, reading, light.shape)
    return np.broadcast_to((255 * np.clip(signal, 0, 1)).round().astype(np.uint8), (*light.shape[:2], 3))


def draw_nuclei(
    count: int, size: int = 96, *, seed: int = 0, look: str | Look | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (count, size, size, 3) and labels int32 (count, size, size): 0 background, nuclei 1..K.

    `look` is a Look or the name of one in LOOKS; without one the looks take turns. Image n depends on (seed, n), size
    and its look alone. Each nucleus is one piece of at least MIN_PIXELS pixels, and every image has one.
    Raises UserError.
    """
    if count < 1:
        raise UserError(f"draw_nuclei: count is {count}; ask for at least 1 image.")
    if size < MIN_SIZE:
        raise UserError(f"draw_nuclei: size is {size}; nuclei need at least {MIN_SIZE} pixels a side.")
    if seed < 0:
        raise UserError(f"draw_nuclei: seed is {seed}; use 0 or more.")
    if isinstance(look, str) and look not in LOOKS:
        raise UserError(f"draw_nuclei: look {look!r} is unknown; choose one of {', '.join(LOOKS)}, or None.")
    look = LOOKS[look] if isinstance(look, str) else look
    images, labels = np.empty((count, size, size, 3), np.uint8), np.empty((count, size, size), np.int32)
    for n in range(count):
        rng, recipe = np.random.default_rng([seed, n]), look or list(LOOKS.values())[n % len(LOOKS)]
        scene = lay_out(rng, size, recipe)
        light = illuminate(rng, recipe.paint(rng, scene))
        light = gaussian(light, size * rng.uniform(*recipe.blur), channel_axis=-1)
        images[n], labels[n] = record(rng, light), scene.labels
    return images, labels
