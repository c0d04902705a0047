"""A JupyterLab on a free port and a headless Chromium, as `make browser-test` has them; `make test` leaves this folder out.

The notebooks are served from a copy, so that a test may save them. Nothing of the user's own settings is read.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from page import Page  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SETTINGS = {  # every cell is in the page, nothing is fetched, nothing pops up
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none", "recordTiming": False},
    "@jupyterlab/apputils-extension/notification": {
        "fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True,
    },
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},  # a test saves when it means to
}  # fmt: skip
STARTING = 300  # seconds that JupyterLab or a page may take, on a machine that others use too


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A place for copies of the notebooks, beside the data that they read."""
    place = tmp_path_factory.mktemp("lesson")
    (place / "data").symlink_to(ROOT / "data")
    (place / "notebooks").mkdir()
    return place / "notebooks"


@pytest.fixture(scope="session")
def server(folder, tmp_path_factory):
    """The address of a JupyterLab with the notebooks, `{}` where the path of a page goes; with its token."""
    home, token = tmp_path_factory.mktemp("jupyter"), secrets.token_hex(16)
    ours = json.loads((ROOT / "notebooks/lab_settings.json").read_text())  # as `make lab` has them
    for name, values in (SETTINGS | {key.replace(":", "/"): value for key, value in ours.items()}).items():
        path = home / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    places = {name: str(home / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
    places |= {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(home / "work")}
    environment = os.environ | places | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    port = free_port()
    options = [f"--ServerApp.root_dir={folder}", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    options += [f"--IdentityProvider.token={token}", "--no-browser", "--allow-root", "--expose-app-in-browser"]
    with (home / "log").open("wb") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for(f"http://127.0.0.1:{port}/api?token={token}", process, home / "log")
            yield f"http://127.0.0.1:{port}/{{}}?token={token}"
        finally:
            process.terminate()  # it shuts its kernels down first, which takes a while
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port():
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(address, process, log):
    """Return once the address answers; fails with the server's log where it ends or takes too long."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(STARTING * 4):
        if process.poll() is not None:
            break
        try:
            return direct.open(address, timeout=5).close()
        except OSError:
            time.sleep(0.25)
    pytest.fail(f"JupyterLab does not answer:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """A Chromium with an empty profile of its own."""
    api = pytest.importorskip("playwright.sync_api", reason="`make browser-test` installs the browser extra")
    if not CHROMIUM.exists():
        pytest.fail("there is no /usr/bin/chromium; Debian's package chromium has it, `make browser-test` installs it")
    with api.sync_playwright() as playwright:
        profile = tmp_path_factory.mktemp("profile")
        size = {"width": 1400, "height": 1000}
        browser = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=FLAGS, viewport=size, ignore_default_args=["--enable-automation"]
        )
        browser.set_default_timeout(1000 * STARTING)
        yield browser
        browser.close()


@pytest.fixture
def lab(chromium, server, folder):
    """Opens a notebook by name, as it is committed; see `Page`. Its console errors are looked at when the test ends."""
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy(path, folder)  # whatever an earlier test saved
    page = Page(chromium.new_page(), server)
    yield page
    errors = list(page.errors)  # of the notebook, not of its closing
    page.close()
    assert not errors, "the console has errors: " + "; ".join(errors)
