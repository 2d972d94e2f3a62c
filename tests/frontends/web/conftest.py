"""A browser on the page of a real daemon: Chromium, driven by Playwright.

Playwright's synchronous interface keeps an event loop in this thread for as long as it runs, so it lives as long as
this package of tests, and these tests ask the daemon over HTTP only.
"""

import json
import shutil
import subprocess
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from renderer.frontends.http.keys import KeyRing
from renderer.frontends.http.tls import make_pair
from tests.daemon_process import DaemonProcess, request, starting, wait_until

LISTENING = ("--http", "127.0.0.1:0", "--workers", "1", "--allow-network", "127.0.0.0/8")
PACKAGES = ("axe-core@4", "@fal-ai/client@1.10.1")
MAX_IMAGE_BYTES = 100_000
Require = Callable[[str, object, str], None]
Open = Callable[..., Any]


@dataclass(frozen=True)
class Caller:
    """Who asks a daemon, and sees the jobs of its key only."""

    daemon: DaemonProcess
    key: str | None = None

    @property
    def http(self) -> str:
        return self.daemon.http

    def ask(self, path: str, body: object = None) -> Any:
        """Ask as any other client does."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Key {self.key}"} if self.key else {}
        request = urllib.request.Request(f"{self.http.rstrip('/')}/{path}", data, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def submit(self, body: object) -> str:
        return str(self.ask("queue/fal-ai/ffmpeg-api/images-to-video", body)["request_id"])

    def states(self) -> dict[str, str]:
        """The state of every job by its id."""
        return {job["request_id"]: job["state"] for job in self.ask("api/jobs?limit=50")["jobs"]}


@pytest.fixture(scope="package")
def browser(require: Require, chromium: str) -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        require("chromium", None, "pip install playwright")
        raise
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_pair(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[DaemonProcess]:
    """A daemon for all tests that do not mind what others have rendered; it speaks HTTPS too."""
    certificate_file, key = certificate
    secure = ("--https", "127.0.0.1:0", "--tls-cert", certificate_file, "--tls-key", key)
    with starting(tmp_path_factory.mktemp("shared")) as start:
        yield start(*LISTENING, *secure)


@pytest.fixture(scope="package")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that wants a key, and takes small images only.

    It has rendered: its first worker has tried held pictures by then, before which no job begins.
    """
    place = tmp_path_factory.mktemp("locked")
    first = KeyRing(place / "data").add("first")
    with starting(place) as start:
        daemon = start(*LISTENING, FETCH__MAX_IMAGE_BYTES=MAX_IMAGE_BYTES)
        caller = Caller(daemon, first)
        job = caller.submit(request())
        wait_until(lambda: caller.states()[job] == "done", "a first job is rendered", 60)
        yield daemon


@pytest.fixture
def fresh(locked: DaemonProcess) -> Caller:
    """A client with a key of its own, so that it has no jobs yet."""
    caller = Caller(locked, KeyRing(locked.data_dir).add(f"test-{uuid.uuid4().hex[:12]}"))
    wait_until(lambda: _is_known(caller), "the daemon knows the new key")
    return caller


@pytest.fixture(scope="package")
def used(browser: Any) -> Iterator[Any]:
    """A browser that knows the page's files already; what a test leaves in it is cleared when the test ends."""
    context = new_context(browser)
    yield context
    context.close()


@pytest.fixture
def open_page(browser: Any, used: Any, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Return a function that opens the page as for the first time; the test fails if a console had an error.

    It is the fresh client's page where the test asks for one. Options ask for a browser of its own.
    """
    if "fresh" in request.fixturenames:
        caller = request.getfixturevalue("fresh")
    else:
        caller = Caller(request.getfixturevalue("shared"))
    contexts, pages, errors = [], [], []

    def open_page(**options: Any) -> Any:
        is_own = bool(options or caller.key)
        context = new_context(browser, caller.key, **options) if is_own else used
        if is_own:
            contexts.append(context)
        page = context.new_page()
        pages.append(page)
        page.on("console", lambda told: errors.append(told.text) if told.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(caller.http)
        page.wait_for_selector("#health-dot[data-state=ready]")
        return page

    yield open_page
    for page in pages:
        page.evaluate("localStorage.clear()")
        page.close()
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def unjudged(browser: Any) -> Iterator[Any]:
    """A page whose console is not judged: what these tests do to it is an error in any browser."""
    context = new_context(browser)
    yield context.new_page()
    context.close()


@pytest.fixture
def page(open_page: Open) -> Any:
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


def new_context(browser: Any, key: str | None = None, **options: Any) -> Any:
    """Open a browser that nobody has used; it keeps a key as the page does."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(60_000)  # a machine may be slow; tests wait for states, never for times
    if key:
        context.add_init_script(
            f"sessionStorage.getItem('stillreel.key') ?? sessionStorage.setItem('stillreel.key', '{key}')"
        )
    return context


def _is_known(caller: Caller) -> bool:
    try:
        caller.ask("api/health")
    except urllib.error.HTTPError:
        return False
    return True
