"""Servers that answer as a test tells them to, and what they answer with."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.protocol.fake_server import RESULT, FakeServer, Handler, job_status


@pytest.fixture
def serve() -> Iterator[Callable[..., FakeServer]]:
    """Start servers that stop with the test."""
    with contextlib.ExitStack() as stack:

        def start(handle: Handler, port: int | str = "*") -> FakeServer:
            server = FakeServer(handle, port)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture
def result() -> dict[str, Any]:
    return dict(RESULT)


@pytest.fixture
def status() -> Callable[..., dict[str, Any]]:
    return job_status
