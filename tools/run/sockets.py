"""Kernels that talk over Unix sockets where the system has them; pytest -p tools.run.sockets for those of nbval.

The TCP ports of a kernel are chosen before it starts. While several kernels start side by side another socket can take
one of them in between, and the lesson ends with "Kernel died before replying to kernel_info".
"""

import os
import tempfile
from itertools import count
from pathlib import Path


def unix_sockets(path: Path) -> dict[str, str]:
    """Options of a KernelManager: `path` is the beginning of the names of its sockets."""
    short = len(f"{path}-5") < 100  # bytes; the system allows 104 or 108
    return {"transport": "ipc", "ip": str(path)} if os.name == "posix" and short else {}


def pytest_configure(config) -> None:
    """Give nbval another maker of kernels: it has no option for it."""
    import nbval.kernel
    from jupyter_client import KernelManager

    folder, number = tempfile.TemporaryDirectory(), count()
    config.add_cleanup(folder.cleanup)
    nbval.kernel.KernelManager = lambda **options: KernelManager(
        **unix_sockets(Path(folder.name, f"{next(number)}")), **options
    )
