"""The state of a lesson's widgets, kept in a file of its own: notebooks/widgets/NN_title.json.

GitHub refuses notebooks with some widget states, so a committed notebook has none; the site puts them back. Ids that
ipywidgets draws at random are replaced by numbers: the same lesson gives the same bytes, but for measured
milliseconds.
"""

import json
import re
from pathlib import Path

from nbformat import NotebookNode

from course_lib.files import write

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
ID = re.compile(r"(?<![0-9A-Za-z+/=])[0-9a-f]{32}(?![0-9A-Za-z+/=])")  # never a part of a picture


def take(nb: NotebookNode) -> dict:
    """Remove from an executed notebook its widget states, and every output that is a view of a widget.

    Returns what was removed: "state", model id -> model, and "views", cell id -> model id. Both empty without widgets.
    """
    metadata = nb.metadata.pop("widgets", {})
    views = {}
    for cell in nb.cells:
        for output in list(cell.get("outputs", [])):
            if VIEW in output.get("data", {}):
                views[cell.id] = output["data"][VIEW]["model_id"]
                cell.outputs.remove(output)
    return _numbered({"state": metadata.get(STATE, {}).get("state", {}), "views": views})


def put(nb: NotebookNode, saved: dict) -> NotebookNode:
    """Give a notebook back what `take` took from it. Views of cells that it no longer has are left out."""
    content = {"state": saved["state"], "version_major": 2, "version_minor": 0}
    nb.metadata["widgets"] = {STATE: content}
    for cell in nb.cells:
        if cell.get("id") in saved["views"]:
            view = {"model_id": saved["views"][cell.id], "version_major": 2, "version_minor": 0}
            data = {VIEW: view, "text/plain": "a widget"}
            output = NotebookNode(output_type="display_data", data=data, metadata={})
            cell.outputs.insert(0, output)
    return nb


def store(path: Path, saved: dict) -> None:
    """Write the file if it says something new; without widgets there is none."""
    if not saved["views"]:
        path.unlink(missing_ok=True)
        return
    text = json.dumps(saved, indent=1, ensure_ascii=False) + "\n"
    if not path.exists() or _lasting(path.read_text(encoding="utf-8")) != _lasting(text):
        write(path, text)


def load(path: Path) -> dict:
    """What `store` wrote, or nothing."""
    if not path.exists():
        return {"state": {}, "views": {}}
    return json.loads(path.read_text(encoding="utf-8"))


def _numbered(saved: dict) -> dict:
    """Every id replaced by its place among the ids, in the order of the text."""
    text = json.dumps(saved)
    order = {name: f"{n:032x}" for n, name in enumerate(dict.fromkeys(ID.findall(text)), start=1)}
    return json.loads(ID.sub(lambda found: order[found[0]], text))


def _lasting(text: str) -> str:
    return re.sub(r"\d+\.\d ms", "ms", text)
