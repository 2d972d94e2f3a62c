"""The fixture `standin`; a conftest.py imports it where it is wanted."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.nvenc_standin.process import Parent, Standin, build


@pytest.fixture(scope="session")
def standin_libraries(tmp_path_factory: pytest.TempPathFactory, require: Callable[[str, object, str], None]) -> Path:
    """Build the stand-in once; skip, or fail where REQUIRE names nvenc-standin, if this machine cannot."""
    try:
        return build(tmp_path_factory.mktemp("standin"))
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", None) or str(error)
        require("nvenc-standin", None, f"apt-get install gcc make libx264-dev libffmpeg-nvenc-dev\n{why}")
        raise


@pytest.fixture(scope="session")
def standin_parent(standin_libraries: Path) -> Iterator[Parent]:
    """Lend the process that makes children over the stand-in."""
    parent = Parent(standin_libraries)
    yield parent
    parent.close()


@pytest.fixture
def standin(standin_parent: Parent, tmp_path: Path) -> Iterator[Standin]:
    """Lend environments for children over the stand-in; at the end nothing that they took may be missing."""
    lent = Standin(standin_parent, tmp_path)
    yield lent
    if leaks := lent.leaks():
        pytest.fail("; ".join(leaks))
