"""One moto for all tests of object storage in this process, and the environment that leads to it."""

from collections.abc import Iterator

import pytest

from tests.objects.stores import KEY, SECRET, Bucket, Moto


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    server = Moto()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


@pytest.fixture
def bucket(moto: Moto, credentials: None, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket at the endpoint that the environment names."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.url)
    return moto.bucket()
