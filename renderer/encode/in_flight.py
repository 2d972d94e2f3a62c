"""Leases on frames that the encoder may still read, released as soon as it does not."""

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Self

from renderer.encode.base import Encoder
from renderer.pictures.memory import Lease


class FramesInFlight:
    """What one encoder was given. As a context around the encoder's, it gives the rest back when that is closed."""

    def __init__(self) -> None:
        # With the number of encode() calls up to the last that read the frame.
        self._leases: deque[tuple[int, Lease]] = deque()
        self._encoded = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        while self._leases:
            self._leases.popleft()[1].release()

    @contextlib.contextmanager
    def lend(self, lease: Lease, encoder: Encoder, times: int) -> Iterator[None]:
        """Take care of a lease whose frame the block encodes so many times."""
        try:
            yield
        finally:
            self._encoded += times
            self._leases.append((self._encoded, lease))
        while self._leases and self._leases[0][0] <= self._encoded - encoder.pending_frames:
            self._leases.popleft()[1].release()
