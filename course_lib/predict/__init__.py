"""What does a trained net find? Probability maps, masks and objects, in images of any size, here and elsewhere."""

from course_lib.predict.maps import Head, as_input, predict, probabilities, probability, standardise
from course_lib.predict.setting import Setting, folded, torch_device

__all__ = [
    "Head", "Setting", "as_input", "folded", "predict", "probabilities", "probability", "standardise", "torch_device",
]  # fmt: skip
