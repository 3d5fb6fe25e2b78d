"""What the interactive views show, and their figures in print: the values of the controls -> a `View`, no widget."""

from course_lib.show.figures import View
from course_lib.show.views.grids import depths_view, design, four_wirings, gradient_view, grid_view, receptive_view
from course_lib.show.views.losses import gradients_of_losses, loss_view
from course_lib.show.views.nets import Features, Predictions

__all__ = [
    "Features", "Predictions", "View", "depths_view", "design", "four_wirings", "gradient_view",
    "gradients_of_losses", "grid_view", "loss_view", "receptive_view",
]  # fmt: skip
