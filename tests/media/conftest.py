"""Each made video is made once."""

from pathlib import Path

import pytest

from tests.media.made import Make, made


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a function from the name of a video to its path."""
    directory = tmp_path_factory.mktemp("videos")

    def make(name: str, *options: str) -> Path:
        return made(directory, name, *options)

    return make
