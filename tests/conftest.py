"""What several test files share."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Someone's own data: ten grey images of 40x48 with two bright squares each, masks of 0 and 255."""
    root, rng = tmp_path_factory.mktemp("own"), np.random.default_rng(1)
    (root / "images").mkdir()
    (root / "masks").mkdir()
    for n in range(10):
        mask = np.zeros((40, 48), np.uint8)
        mask[4:14, 5 + n : 17 + n] = mask[22:34, 20:30] = 255
        noise = rng.normal(0, 12, mask.shape)
        Image.fromarray(np.clip(50 + 0.5 * mask + noise, 0, 255).astype(np.uint8)).save(root / f"images/cell{n}.png")
        Image.fromarray(mask).save(root / f"masks/cell{n}.png")
    return root
