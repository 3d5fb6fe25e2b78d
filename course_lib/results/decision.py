"""Which U-Net is the fair baseline? What validation chose, in costs.json and tuning.json (docs/protocol.md)."""

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
SUPERVISED = "unet++ 8..128, mean"  # UNet++ with all heads: its costs, and those of its levels, are the budgets
BUDGETS = ("weights", "work", "time", "level 1", "level 2", "level 3")  # the last three: work of UNet++ cut to it
WITHIN = 1.05  # times a budget still counts as that budget
COMPARED_AT = 3e-3  # the learning rate at which the U-Nets of all depths and widths were compared


def budget(costs: Sequence[Row], name: str) -> tuple[str, float]:
    """The column of costs.json that a budget is counted in, "parameters", "macs" or "ms", and the most of it."""
    whole = next(row for row in costs if row["net"] == SUPERVISED)
    if name.startswith("level "):
        return "macs", whole["levels"][name.removeprefix("level ")]["macs"]
    column = {"weights": "parameters", "work": "macs", "time": "ms"}[name]
    return column, whole[column]


def tuned(tuning: Sequence[Row], costs: Sequence[Row], kind: str, column: str, at_most: float) -> str:
    """The U-Net, of any depth and width, with the best validation score among those that cost no more.

    `kind` of images; `column` and `at_most` as `budget` gives them. What costs up to WITHIN times as much counts.
    """
    cost = {row["net"]: row[column] for row in costs}
    runs = [row for row in tuning if row["kind"] == kind and row["lr"] == COMPARED_AT and is_u_net(row["net"])]
    return max((row for row in runs if cost[row["net"]] <= WITHIN * at_most), key=score)["net"]


def is_u_net(net: str) -> bool:
    """Whether a net of the tables is a plain U-Net."""
    return net.startswith("unet ")


def rate(tuning: Sequence[Row], kind: str, net: str) -> float:
    """The learning rate with the best validation score."""
    return max((row for row in tuning if (row["kind"], row["net"]) == (kind, net)), key=score)["lr"]


def score(row: Row) -> float:
    """Validation score of a run, with several heads that of the best way to read them."""
    return max(row["val"].values())
