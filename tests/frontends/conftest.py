from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon_process import DaemonProcess, starting

MAX_REQUEST_BYTES = 200_000


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one directory that the shared daemon may read."""
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, roots: Path) -> Iterator[DaemonProcess]:
    """One daemon for all tests of a module that leave it as it was."""
    with starting(tmp_path_factory.mktemp("daemon")) as start:
        daemon = start("--allow-http", "--allow-root", roots, SERVER__MAX_REQUEST_BYTES=MAX_REQUEST_BYTES)
        yield daemon
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.words()
