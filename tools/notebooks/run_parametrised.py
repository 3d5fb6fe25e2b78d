"""Run one lesson with other parameters and print what it recorded, as JSON.

python -m tools.notebooks.run_parametrised notebooks/04_unet.ipynb build/param -p PRESET=smoke -p SEED=1
"""

import argparse
import ast
import json
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill

from course_lib.errors import UserError
from tools.command import command
from tools.run.lessons import execute


def run(notebook: Path, out: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """Execute `notebook` into OUT/NN_title.ipynb; returns what it recorded (OUT/NN_title.json), {} for nothing.

    Raises UserError for a parameter that the lesson does not have, which papermill would only log, and
    nbclient's CellExecutionError for a failing cell.
    """
    known = papermill.inspect_notebook(notebook)
    if unknown := sorted(set(parameters) - set(known)):
        raise UserError(f"{notebook.name} has no parameter {', '.join(unknown)}: choose from {', '.join(known)}")
    out.mkdir(parents=True, exist_ok=True)
    record = out.resolve() / f"{notebook.stem}.json"
    record.unlink(missing_ok=True)
    env = {key: value for key, value in os.environ.items() if key not in ("COURSE_PRESET", "MPLBACKEND")}
    env |= {"COURSE_LESSON": notebook.stem, "COURSE_RESULTS_DIR": str(record.parent)}
    nb = papermill.execute_notebook(notebook, out / notebook.name, parameters, prepare_only=True)
    execute(nb, cwd=notebook.parent, env=env, timeout=900)
    nbformat.write(nb, out / notebook.name)
    return json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}


def parameter(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value as Python reads it, or else as text."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("out", type=Path, help="folder for the executed notebook and its results")
    parser.add_argument("-p", dest="parameters", type=parameter, action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args(argv)
    print(json.dumps(run(args.notebook, args.out, dict(args.parameters)), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
