"""pytest -p tools.nbval_sockets: the kernels of nbval talk over Unix sockets where the system has them.

The TCP ports of a kernel are chosen before it starts. While several kernels start side by side another socket can take
one of them in between, and the lesson ends with "Kernel died before replying to kernel_info".
"""

import os
import tempfile
from itertools import count
from typing import Any

import nbval.kernel
import pytest
from jupyter_client import KernelManager


def pytest_configure(config: pytest.Config) -> None:
    """Give nbval another maker of kernels: it has no option for it."""
    if os.name != "posix":
        return
    folder, number = tempfile.TemporaryDirectory(), count()
    if len(f"{folder.name}/100-5") >= 100:  # bytes; the system allows 104 or 108 for the path of a socket
        return

    def with_sockets(**options: Any) -> KernelManager:
        return KernelManager(transport="ipc", ip=f"{folder.name}/{next(number)}", **options)

    nbval.kernel.KernelManager = with_sockets
    config.add_cleanup(folder.cleanup)
