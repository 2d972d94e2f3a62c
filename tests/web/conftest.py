"""A browser on the page of a real daemon: Debian's Chromium, driven by Playwright.

Playwright's synchronous interface keeps an event loop in this thread for as long as it runs, so it lives as long as one
module of tests, and these tests ask the daemon over HTTP only.
"""

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon_process import DaemonProcess, Start, starting

LISTENING = ("--http", "127.0.0.1:0", "--workers", "1", "--allow-network", "127.0.0.0/8")
PACKAGES = ("axe-core@4", "@fal-ai/client@1.10.1")
Require = Callable[[str, object, str], None]


@pytest.fixture(scope="module")
def browser(require: Require) -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    require("chromium", chromium, "Debian: chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        require("chromium", None, "pip install playwright")
        raise
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon for all tests of a module that do not mind what others have rendered."""
    with starting(tmp_path_factory.mktemp("shared")) as start:
        yield start(*LISTENING)


@pytest.fixture
def fresh(start: Start) -> DaemonProcess:
    """A daemon that has no jobs yet, for one test."""
    return start(*LISTENING)


@pytest.fixture
def open_page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Return a function that opens the page in a browser of its own; the test fails if a console had an error.

    The page is the fresh daemon's where the test asks for one.
    """
    daemon = request.getfixturevalue("fresh" if "fresh" in request.fixturenames else "shared")
    contexts, errors = [], []

    def open_page(**options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda told: errors.append(told.text) if told.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(daemon.http)
        page.wait_for_selector("#health-dot[data-state=ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def page(open_page: Callable[..., Any]) -> Any:
    return open_page()


@pytest.fixture(scope="session")
def npm_packages(require: Require, pytestconfig: pytest.Config) -> Path:
    """The directory of axe-core and the hosted service's client, fetched once into pytest's cache."""
    require("node", shutil.which("node") and shutil.which("npm"), "Debian: nodejs, npm")
    assert pytestconfig.cache is not None
    place = pytestconfig.cache.mkdir("npm")
    modules = place / "node_modules"
    if not all((modules / name / "package.json").is_file() for name in ("axe-core", "@fal-ai/client")):
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(place), *PACKAGES]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        require("node", done.returncode == 0, f"npm install {' '.join(PACKAGES)}: {done.stderr[-300:]}")
    return modules


def ask(daemon: DaemonProcess, path: str, body: object = None) -> Any:
    """Ask the daemon as any other client does."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{daemon.http.rstrip('/')}/{path}", data)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def submit(daemon: DaemonProcess, body: object) -> str:
    return str(ask(daemon, "queue/fal-ai/ffmpeg-api/images-to-video", body)["request_id"])


def states(daemon: DaemonProcess) -> dict[str, str]:
    """The state of every job by its id."""
    return {job["request_id"]: job["state"] for job in ask(daemon, "api/jobs?limit=50")["jobs"]}
