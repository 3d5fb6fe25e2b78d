"""Run the lessons one after the other and write a page about it: `make course`, `python -m tools.run`.

The lessons run in kernels of this very Python, whatever kernels are registered, and import this course_lib.
"""

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

from course_lib.errors import UserError
from course_lib.files import write
from tools.run.pages import lesson_page
from tools.run.report import about, summary, write_pages

LONGEST_CELL = 3600  # seconds: a kernel that stands still fails its lesson, and the others still run
LOOK_AGAIN = 1.0  # seconds


def select(names: Sequence[str], only: Sequence[str] = ()) -> list[str]:
    """The lessons of `names` that `only` asks for by name ("04_unet") or number ("04"); all if `only` is empty.

    Raises UserError for an entry that no lesson answers to.
    """
    for entry in only:
        if not any(entry in (name, name.split("_")[0]) for name in names):
            raise UserError(f"--only {entry} names no lesson: choose from {', '.join(names)}")
    return [name for name in names if not only or name in only or name.split("_")[0] in only]


def execute(
    nb, *, cwd: Path, env: dict[str, str], timeout: int | None = None, on_cell: Callable | None = None
) -> int | None:
    """Run the notebook node `nb` in place, in a fresh kernel with the environment `env`.

    `timeout` is in seconds per cell; `on_cell(index)` is called before each cell. Returns the most bytes of memory
    that the kernel held at one time, None where the system does not tell. Raises, as nbclient does,
    CellExecutionError for the first failing cell, CellTimeoutError (a TimeoutError) for one that took too long, and
    DeadKernelError (a RuntimeError) for a kernel that died.
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from nbclient import NotebookClient

    here = [str(Path(__file__).resolve().parents[2]), env.get("PYTHONPATH", "")]
    with tempfile.TemporaryDirectory() as profile:  # no start-up files or settings of the user's IPython
        env = env | {"IPYTHONDIR": profile, "PYTHONPATH": os.pathsep.join(filter(None, here))}
        native = KernelSpecManager(kernel_dirs=[])  # without folders to search, python3 is sys.executable
        # Unix sockets where there are some: a TCP port that was free can be taken when the kernel comes to it.
        short = len(f"{profile}/kernel-5") < 100  # bytes; the system allows 104 or 108
        sockets = {"transport": "ipc", "ip": f"{profile}/kernel"} if os.name == "posix" and short else {}
        client = NotebookClient(
            nb,
            km=AsyncKernelManager(
                kernel_name="python3", kernel_spec_manager=native, client_factory=patient_client(), **sockets
            ),
            timeout=timeout,
            record_timing=False,
            coalesce_streams=True,
            extra_arguments=["--Application.log_level=CRITICAL"],
            resources={"metadata": {"path": str(cwd)}},
        )
        memory: list[int | None] = [None]
        client.on_cell_start = on_cell and (lambda cell, cell_index: on_cell(cell_index))
        client.on_cell_executed = lambda **_: memory.append(peak_memory(client.km.provisioner.pid))
        done: Future = Future()

        def work() -> None:
            try:
                done.set_result(client.execute(env=env, cleanup_kc=True))
            except BaseException as problem:
                done.set_exception(problem)

        beside = Thread(target=work, daemon=True)  # in the main thread nbclient would take Ctrl-C for itself
        beside.start()
        try:
            done.result()
        except KeyboardInterrupt:
            client.on_cell_start = lambda **_: client.km.provisioner.process.kill()  # where it is still starting
            if client.km is not None and client.km.has_kernel:
                client.km.provisioner.process.kill()
            beside.join(timeout=10)  # seconds; it notices within one, and nobody who types Ctrl-C waits for more
            raise
    return memory[-1]


def patient_client() -> type:
    """jupyter_client's AsyncKernelClient, which looks again every second for the answer of the kernel.

    When a widget changes, nbclient sends. That send reads the socket on which asyncio waits, and at times the sign that
    an answer has come is lost by it: kernel and client stand still, the answer between them.
    """
    from queue import Empty

    from jupyter_client.asynchronous import AsyncKernelClient

    class PatientChannel(AsyncKernelClient().shell_channel_class):
        async def get_msg(self, timeout: float | None = None) -> dict:
            end = float("inf") if timeout is None else time.monotonic() + timeout
            while True:
                try:
                    return await super().get_msg(min(LOOK_AGAIN, max(0.0, end - time.monotonic())))
                except Empty:
                    if time.monotonic() >= end:
                        raise

    class PatientClient(AsyncKernelClient):
        def __init__(self, **options):
            super().__init__(**options)
            self.shell_channel_class = PatientChannel

    return PatientClient


def peak_memory(pid: int) -> int | None:
    """The most bytes that a process has held at one time so far; None on systems without /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.M)
    return 1024 * int(found[1]) if found else None


def run_lessons(
    notebooks: Path, out: Path, *, preset: str = "auto", only: Sequence[str] = (), progress: bool = True
) -> list[dict]:
    """Execute the lessons in `notebooks` and write OUT/NN_title.html, OUT/index.html and OUT/summary.json.

    A failing lesson does not stop the others. `progress` shows a bar and prints a table at the end. Returns
    one row per lesson: `lesson`, `title`, `status` ("passed", "failed"), `seconds`, `memory` (peak bytes or None),
    `scores` (what the lesson recorded), `page`, `error` (None, or a dict of `cell`, `id`, `message`). Raises
    UserError for an unknown `preset` or `only`, no lessons, an `out` that cannot be written, and a missing extra.
    """
    try:
        import nbclient  # noqa: F401
        import nbconvert  # noqa: F401
        import nbformat
    except ModuleNotFoundError as error:
        hint = f'{error.name} is missing: to run lessons, type `pip install -e ".[notebooks]"` in the checkout'
        raise UserError(hint) from None
    from tqdm import tqdm

    names = sorted(path.stem for path in Path(notebooks).glob("[0-9][0-9]_*.ipynb"))
    if not names:
        raise UserError(f"{notebooks} holds no lessons NN_title.ipynb: run this in a checkout of the course")
    names, facts = select(names, only), about(preset)
    try:
        books = {name: nbformat.read(Path(notebooks) / f"{name}.ipynb", as_version=4) for name in names}
    except ValueError as problem:  # nbformat says NotJSONError, a kind of it
        raise UserError(f"a lesson in {notebooks} is no notebook ({problem}): check it out again") from None
    results = Path(out).resolve() / "results"
    try:
        results.mkdir(parents=True, exist_ok=True)
        # Figures stay inline, and no kept training stands in for one that is measured.
        env = {key: value for key, value in os.environ.items() if key not in ("MPLBACKEND", "COURSE_RUNS")}
        env |= {"COURSE_PRESET": facts["preset"], "COURSE_RESULTS_DIR": str(results)}
        rows: list[dict] = []
        cells, done = sum(len(nb.cells) for nb in books.values()), 0
        with tqdm(total=cells, unit="cell", disable=not progress) as bar:
            for before, name, after in zip(["", *names[:-1]], names, [*names[1:], ""], strict=True):
                nb = books[name]
                bar.set_description(name)
                rows.append(_run(name, nb, notebooks, results, env | {"COURSE_LESSON": name}, bar.update))
                page = lesson_page(nb, name, before=before, after=after)
                write(results.parent / f"{name}.html", page)
                done += len(nb.cells)
                bar.update(done - bar.n)
                write_pages(results.parent, facts, rows)  # after every lesson: Ctrl-C leaves a page too
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error}): choose another folder with --out") from None
    if progress:
        print(summary(rows, out))
    return rows


def _run(name: str, nb, notebooks: Path, results: Path, env: dict[str, str], step: Callable) -> dict:
    """Execute one lesson and return its row."""
    from nbclient.exceptions import CellExecutionError

    record, at, memory, error = results / f"{name}.json", 0, None, None
    record.unlink(missing_ok=True)  # the scores of an earlier run are not this run's

    def on_cell(index: int) -> None:
        nonlocal at
        step(index - at)
        at = index

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
