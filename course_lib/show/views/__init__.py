"""What the interactive views show. Each function takes the values of the controls and returns a `View`.

No widget in here: the figures in print come from the same functions. `show.widgets` puts controls beside them.
"""

from course_lib.show.views.features import Features
from course_lib.show.views.gradients import gradient_view
from course_lib.show.views.grids import design, four_wirings, grid_view
from course_lib.show.views.losses import gradients_of_losses, loss_view
from course_lib.show.views.predictions import Predictions
from course_lib.show.views.receptive import depths_view, receptive_view
from course_lib.show.views.view import Spot, View

__all__ = [
    "Features",
    "Predictions",
    "Spot",
    "View",
    "depths_view",
    "design",
    "four_wirings",
    "gradient_view", "gradients_of_losses",
    "grid_view",
    "loss_view",
    "receptive_view",
]  # fmt: skip
