"""What does a trained net find? Probability maps, masks and objects, in images of any size, here and elsewhere."""

from course_lib.predict.maps import (
    PREPARATIONS,
    Head,
    as_input,
    inputs_of,
    predict,
    probabilities,
    probability,
    standardise,
)  # fmt: skip
from course_lib.predict.setting import Setting, folded, torch_device, unwrapped

__all__ = [
    "PREPARATIONS", "Head", "Setting", "as_input", "folded", "inputs_of", "predict", "probabilities", "probability",
    "standardise", "torch_device", "unwrapped",
]  # fmt: skip
