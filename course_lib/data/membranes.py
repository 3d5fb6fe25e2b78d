"""Draws "somebody's own data" for lesson 12: light cells that all touch, with thin dark membranes between them."""

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

from course_lib.data import pixels

SPACING = 28  # pixels between the middles of two cells
THICKNESS = 2.6  # pixels of a membrane, before blurring


def draw_membranes(count: int, size: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, S, S) and instance labels int32 (N, S, S): 0 membrane, 1..K the cells.

    Cells are the Voronoi regions of shaken grid points, bent by a smooth field. A membrane is where the nearest and
    the second nearest point are about equally far. Image n depends on `seed` and n alone.
    """
    images, labels = zip(*(_draw(size, seed, n) for n in range(count)), strict=True)
    return np.stack(images), np.stack(labels)


def write_folder(folder: str | Path, *, count: int = 30, size: int = 256, seed: int = 0) -> Path:
    """Draws a data set into folder/images/*.png and folder/masks/*.png (16 bit, instance numbers). Returns the folder.
    Raises UserError: the folder is there and not empty, or cannot be written.
    """
    pixels.write_folder(folder, ((f"tissue{n:03d}", *_draw(size, seed, n)) for n in range(count)))
    return Path(folder)


def _draw(size: int, seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, n])
    grid = np.mgrid[-SPACING : size + SPACING : SPACING, -SPACING : size + SPACING : SPACING].reshape(2, -1).T
    points = grid + rng.uniform(-0.42, 0.42, grid.shape) * SPACING
    bend = 4 * np.stack([_smooth(size, 24, rng) for _ in range(2)], axis=-1)  # pixels
    where = np.moveaxis(np.mgrid[:size, :size], 0, -1) + bend
    distance, nearest = cKDTree(points).query(where, k=2)
    membrane = distance[..., 1] - distance[..., 0] < THICKNESS
    _, labels = np.unique(np.where(membrane, -1, nearest[..., 0]), return_inverse=True)
    labels = labels.reshape(size, size).astype(np.int32)  # 0 is the membrane, which every image has

    shade = rng.normal(0.68, 0.05, labels.max() + 1)[labels] + 0.05 * _smooth(size, 2, rng)
    image = np.where(membrane, 0.3 + 0.06 * _smooth(size, 4, rng), shade)
    image = gaussian_filter(image, 0.8) * (1 + 0.2 * _smooth(size, size / 3, rng)) + rng.normal(0, 0.03, image.shape)
    return np.rint(255 * image.clip(0, 1)).astype(np.uint8), labels


def _smooth(size: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise (size, size) of about mean 0 and deviation 1, whose hills are about `scale` pixels wide."""
    coarse = rng.normal(size=(int(size / scale) + 4,) * 2)
    place = np.mgrid[:size, :size] / scale + 1
    return map_coordinates(coarse, place, order=3)
