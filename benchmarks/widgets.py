"""How long does an interactive view take to answer? Milliseconds from a moved control to the new page, each control.

python benchmarks/widgets.py [--preset laptop] [--repeats 7] [--json FILE]
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from course_lib import data
from course_lib.grid import NestedUNet
from course_lib.lesson import presets
from course_lib.results import machine, table
from course_lib.show import widgets

LIMIT = 200  # what a reader still takes for "at once"; the goal on two cores with the preset laptop


def explorers(preset: str) -> dict[str, widgets.Explorer]:
    """Every explorer, as the lessons make it; the nets are not trained, which costs the same."""
    sizes = presets.sizes(preset)
    torch.manual_seed(0)
    val = data.draw(100, sizes.size).val
    net = NestedUNet(widths=sizes.widths, deep_supervision=True)
    return {
        "grid_explorer": widgets.grid_explorer(),
        "prediction_explorer": widgets.prediction_explorer(net, val.images[:12], masks=val.masks[:12]),
        "feature_explorer": widgets.feature_explorer(net, val.images[0]),
        "gradient_explorer": widgets.gradient_explorer(val.images[:4], val.masks[:4]),
        "loss_playground": widgets.loss_playground(),
        "receptive_field_explorer": widgets.receptive_field_explorer(val.images[0]),
    }


def other_values(control) -> list:
    """Two values that the control can take."""
    if hasattr(control, "options"):
        values = [option[1] if isinstance(option, tuple) else option for option in control.options]
        return [values[-1], values[0]]
    if isinstance(control.value, bool):
        return [not control.value, control.value]
    return [control.value + control.step, control.value] if control.value < control.max else [control.min, control.max]


def answers(control, repeats: int) -> list[float]:
    """Milliseconds of each answer while the control goes to and fro; a refusal counts as an answer."""
    start = control.value
    found = []
    for value in other_values(control) * repeats:
        if value == control.value:
            continue
        begin = time.perf_counter()
        control.value = value
        found.append(1000 * (time.perf_counter() - begin))
    control.value = start
    return found[1:] or found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--repeats", type=int, default=7, help="2 or more")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    args = parser.parse_args()
    rows = []
    for name, explorer in explorers(args.preset).items():
        for control in explorer.controls.values():
            ms = answers(control, args.repeats)
            rows.append(
                {"widget": name, "control": control.description, "median ms": statistics.median(ms), "most ms": max(ms)}
            )
    about = machine()
    print(f"{about['device']}, torch {about['torch']}, preset {args.preset}")
    print(table(rows))
    slow = [row for row in rows if row["median ms"] > LIMIT]
    print(f"{len(slow)} of {len(rows)} controls answer later than {LIMIT} ms")
    if args.json:
        args.json.write_text(json.dumps({"measured": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
