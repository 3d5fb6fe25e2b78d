"""A real JupyterLab in a real Chromium, with nothing of the user's: settings, kernels and folders are temporary."""

import functools
import http.server
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"  # all that a lesson asks of the network
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


def missing(what: str) -> None:
    """Skip with the line that says what to install; where browser tests are demanded, fail with it."""
    (pytest.fail if os.environ.get("COURSE_REQUIRE_BROWSER") == "1" else pytest.skip)(what)


@pytest.fixture(scope="session")
def chromium():
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        missing('browser tests need playwright: pip install -e ".[browser]"')
    found = [os.environ.get("COURSE_BROWSER"), *map(shutil.which, NAMES)]
    path = next((name for name in found if name and Path(name).exists()), None)
    if path is None:
        missing(
            "browser tests need Chromium or Chrome: apt-get install chromium, or set COURSE_BROWSER=/path/to/chrome"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """(address, token, folder) of a JupyterLab server that runs lessons with the preset smoke."""
    pytest.importorskip("jupyterlab", reason="browser tests need JupyterLab: pip install -e '.[notebooks]'")
    home, root = tmp_path_factory.mktemp("lab-home"), tmp_path_factory.mktemp("lab-root")
    settings = {
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        "notebook-extension/tracker": {"windowingMode": "none"},
    }
    for name, content in settings.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content), encoding="utf-8")
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
              "IPYTHONDIR": "ipython", "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "work",
              "COURSE_DATA": "course-data"}  # fmt: skip
    env = os.environ | {name: str(home / folder) for name, folder in places.items()}
    env |= {"COURSE_PRESET": "smoke", "OMP_NUM_THREADS": "1"}
    env.pop("COURSE_BBBC038_ARCHIVE", None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
               "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}",
               "--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]  # fmt: skip
    if getattr(os, "geteuid", lambda: 1)() == 0:
        command.append("--allow-root")
    log = home / "server.log"
    with log.open("w") as out:
        server = subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/api/status?token={token}", server, log)
        yield address, token, root
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def _wait_for(url: str, server: subprocess.Popen, log: Path, seconds: int = 60) -> None:
    for _ in range(4 * seconds):
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=1)
            return
        except OSError:
            time.sleep(0.25)
    pytest.fail("JupyterLab did not start:\n" + log.read_text()[-2000:])


@pytest.fixture
def watched(chromium):
    """A function that opens a page of a given size; at the end, what the pages complained about fails the test."""
    contexts, complaints = [], []

    def foreign(request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")) and request.url != BADGE:
            complaints.append(f"asks the network for {request.url}")

    def lost(request) -> None:
        if "ERR_ABORTED" not in request.failure:  # the page was left before it had all it asked for
            complaints.append(f"failed: {request.url} {request.failure}")

    def open_page(width: int = 1280, height: int = 900):
        context = chromium.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.on("request", foreign)
        page.on("console", lambda line: line.type == "error" and complaints.append(f"console: {line.text}"))
        page.on("pageerror", lambda error: complaints.append(f"page: {error}"))
        page.on("requestfailed", lost)
        page.on("response", lambda answer: answer.status >= 400 and complaints.append(f"{answer.status}: {answer.url}"))
        page.set_default_timeout(60_000)
        return page

    open_page.complaints = complaints
    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def serve():
    """A function that serves a folder on this machine and returns its address."""
    servers = []

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    def start(folder: Path) -> str:
        handler = functools.partial(Silent, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
