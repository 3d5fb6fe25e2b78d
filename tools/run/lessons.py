"""Run the lessons one after the other and write a page about it: `make course`, `python -m tools.run`.

Each lesson runs in a kernel of its own, of this very Python and this course_lib, whatever kernels are registered.
"""

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from course_lib.errors import UserError
from course_lib.files import write
from tools.checkout import ROOT
from tools.run.pages import lesson_page
from tools.run.report import about, summary, write_pages
from tools.run.sockets import unix_sockets

PATHS = ("COURSE_DATA", "COURSE_RUNS", "COURSE_PROGRESS", "COURSE_RESULTS_DIR")  # and those that end in _ARCHIVE
LONGEST_CELL = 3600  # seconds: a kernel that stands still fails its lesson, and the others still run


def select(names: Sequence[str], only: Sequence[str] = ()) -> list[str]:
    """The lessons of `names` that `only` asks for by name ("04_unet") or number ("04"); all if `only` is empty.

    Raises UserError for an entry that no lesson answers to.
    """
    for entry in only:
        if not any(entry in (name, name.split("_")[0]) for name in names):
            raise UserError(f"--only {entry} names no lesson: choose from {', '.join(names)}")
    return [name for name in names if not only or name in only or name.split("_")[0] in only]


def execute(
    nb,
    *,
    cwd: Path,
    env: dict[str, str],
    timeout: int | None = None,
    on_cell: Callable | None = None,
    python: Path | None = None,
) -> int | None:
    """Run the notebook node `nb` in place, in a fresh kernel with the environment `env`.

    `timeout` is in seconds per cell; `on_cell(index)` is called before each cell, of text too. `python` is another
    Python than this one, which then has to find course_lib by itself. Returns the most bytes of memory that the kernel
    held at one time, None where the system does not tell. Raises, as nbclient does, CellExecutionError for the first
    failing cell, CellTimeoutError (a TimeoutError) for one that took too long, and DeadKernelError (a RuntimeError)
    for a kernel that died.
    """
    from nbclient import NotebookClient

    env = _absolute(env)
    if python is None:
        env = env | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))}
    memory: list[int | None] = [None]
    with tempfile.TemporaryDirectory() as profile:  # no start-up files or settings of the user's IPython
        client = NotebookClient(
            nb,
            km=_kernels(Path(profile), python or Path(sys.executable)),
            timeout=timeout,
            record_timing=False,
            coalesce_streams=True,
            extra_arguments=["--Application.log_level=CRITICAL"],
            resources={"metadata": {"path": str(cwd)}},
        )
        client.on_cell_start = on_cell and (lambda cell, cell_index: on_cell(cell_index))
        client.on_cell_executed = lambda **_: memory.append(peak_resident(client.km.provisioner.pid))
        with ThreadPoolExecutor(1) as beside:  # in the main thread nbclient would take Ctrl-C for itself
            running = beside.submit(client.execute, env=env | {"IPYTHONDIR": profile}, cleanup_kc=True)
            try:
                running.result()
            except KeyboardInterrupt:
                client.on_cell_start = lambda **_: client.km.provisioner.process.kill()  # if it is still starting
                if client.km.has_kernel:
                    client.km.provisioner.process.kill()
                raise
    return memory[-1]


def _absolute(env: dict[str, str]) -> dict[str, str]:
    """The environment with paths as they were meant where the command was typed: a kernel starts in another folder."""
    paths = [name for name in env if name.startswith("COURSE_") and (name in PATHS or name.endswith("_ARCHIVE"))]
    return env | {name: str(Path(env[name]).absolute()) for name in paths if env[name]}


@contextmanager
def laptop() -> Iterator[dict[str, str]]:
    """The environment of a laptop without a GPU, a cache, an archive of nuclei or any setting of the course."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("COURSE_", "MPLBACKEND"))}
    with tempfile.TemporaryDirectory() as data:
        yield env | {"COURSE_PRESET": "laptop", "COURSE_DATA": data, "CUDA_VISIBLE_DEVICES": ""}


def timed(nb, **options) -> list[float]:
    """`execute`; returns the seconds after which each cell began, and at the end those that all of it took."""
    began: list[float] = []
    start = time.perf_counter()
    execute(nb, on_cell=lambda _: began.append(time.perf_counter() - start), **options)
    return [*began, time.perf_counter() - start]


def _kernels(folder: Path, python: Path):
    """What starts kernels of `python` alone; their description and their sockets lie in `folder`."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager

    argv = [str(python), "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (folder / "python3").mkdir()
    described = json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"})
    (folder / "python3" / "kernel.json").write_text(described, encoding="utf-8")
    ours = KernelSpecManager(kernel_dirs=[str(folder)], ensure_native_kernel=False)
    return AsyncKernelManager(kernel_name="python3", kernel_spec_manager=ours, **unix_sockets(folder / "kernel"))


def peak_resident(pid: int) -> int | None:
    """The most bytes of memory that a process has held at one time so far; None on systems without /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.M)
    return 1024 * int(peak[1]) if peak else None


def run_lessons(
    notebooks: Path, out: Path, *, preset: str = "auto", only: Sequence[str] = (), progress: bool = True
) -> list[dict]:
    """Execute the lessons in `notebooks` and write OUT/NN_title.html, OUT/index.html and OUT/summary.json.

    A failing lesson does not stop the others. `progress` shows a bar and prints a table at the end. Returns
    one row per lesson: `lesson`, `title`, `status` ("passed", "failed"), `seconds`, `memory` (peak bytes or None),
    `scores` (what the lesson recorded), `page`, `error` (None, or a dict of `cell`, `id`, `message`). Raises
    UserError for an unknown `preset` or `only`, no lessons, an `out` that cannot be written, and a missing extra.
    """
    books, facts = _read(Path(notebooks), only), about(preset)
    from tqdm import tqdm

    results = Path(out).resolve() / "results"
    # Figures stay inline, and no kept training stands in for one that is measured.
    env = {key: value for key, value in os.environ.items() if key not in ("MPLBACKEND", "COURSE_RUNS")}
    env |= {"COURSE_PRESET": facts["preset"], "COURSE_RESULTS_DIR": str(results)}
    names, rows = list(books), []
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tqdm(total=sum(len(nb.cells) for nb in books.values()), unit="cell", disable=not progress) as bar:
            for before, name, after in zip(["", *names[:-1]], names, [*names[1:], ""], strict=True):
                nb, begun = books[name], bar.n
                bar.set_description(name)
                step = lambda index, begun=begun: bar.update(begun + index - bar.n)  # noqa: E731
                rows.append(_run(nb, notebooks, results, env=env | {"COURSE_LESSON": name}, step=step))
                bar.update(begun + len(nb.cells) - bar.n)
                write(results.parent / f"{name}.html", lesson_page(nb, name, before=before, after=after))
                write_pages(results.parent, facts, rows)  # after every lesson: Ctrl-C leaves a page too
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error}): choose another folder with --out") from None
    if progress:
        print(summary(rows, out))
    return rows


def _read(folder: Path, only: Sequence[str]) -> dict:
    """Name -> notebook of the lessons that are asked for."""
    try:
        import nbclient  # noqa: F401
        import nbconvert  # noqa: F401
        import nbformat
    except ModuleNotFoundError as error:
        hint = f'{error.name} is missing: to run lessons, type `pip install -e ".[notebooks]"` in the checkout'
        raise UserError(hint) from None
    names = sorted(path.stem for path in folder.glob("[0-9][0-9]_*.ipynb"))
    if not names:
        raise UserError(f"{folder} holds no lessons NN_title.ipynb: run this in a checkout of the course")
    names = select(names, only)
    try:
        return {name: nbformat.read(folder / f"{name}.ipynb", as_version=4) for name in names}
    except ValueError as problem:  # nbformat says NotJSONError, a kind of it
        raise UserError(f"a lesson in {folder} is no notebook ({problem}): check it out again") from None


def _run(nb, notebooks: Path, results: Path, *, env: dict[str, str], step: Callable) -> dict:
    """Execute one lesson and return its row."""
    from nbclient.exceptions import CellExecutionError

    name = env["COURSE_LESSON"]
    record, at, memory, error = results / f"{name}.json", 0, None, None
    record.unlink(missing_ok=True)  # the scores of an earlier run are not this run's

    def on_cell(index: int) -> None:
        nonlocal at
        at = index
        step(index)

    start = time.perf_counter()
    try:
        memory = execute(nb, cwd=notebooks, env=env, timeout=LONGEST_CELL, on_cell=on_cell)
    except CellExecutionError as failure:
        error = f"{failure.ename}: {failure.evalue}"
    except TimeoutError:
        error = f"the cell took longer than {LONGEST_CELL} seconds: run the lesson again"
    except RuntimeError as failure:  # the kernel died, or never came up
        error = f"{failure}"
    seconds = time.perf_counter() - start
    if error:
        error = {"cell": at + 1, "id": nb.cells[at].get("id", ""), "message": " ".join(error.split())}
    return {
        "lesson": name,
        "title": nb.cells[0].source.partition("\n")[0].lstrip("# ") if nb.cells else name,
        "status": "failed" if error else "passed",
        "seconds": round(seconds, 1),
        "memory": memory,
        "scores": json.loads(record.read_text(encoding="utf-8")) if record.exists() else {},
        "page": f"{name}.html",
        "error": error,
    }
