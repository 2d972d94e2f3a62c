"""Frames come back when the encoder has read them, and not before."""

from collections.abc import Sequence

import numpy as np
import pytest

from renderer.config import EncodeSettings
from renderer.encode.base import FramesInFlight, Nv12Frame
from renderer.encode.null import NullEncoder
from renderer.encode.stream import AccessUnit, StreamSettings
from renderer.pictures.memory import FramePool, Lease


class Lagging(NullEncoder):
    """Reads the last three frames for longer than encode() takes."""

    lag = 3
    frames = 0

    @property
    def pending_frames(self) -> int:
        return min(self.frames, self.lag)

    def encode(self, frame: Nv12Frame) -> Sequence[AccessUnit]:
        self.frames += 1
        return super().encode(frame)


@pytest.fixture
def pool(stream: StreamSettings) -> FramePool:
    return FramePool(stream.canvas.nv12_shape, 4)


def free(pool: FramePool) -> int:
    return int(repr(pool).split()[1])


def give(lent: FramesInFlight, encoder: NullEncoder, lease: Lease, times: int = 1) -> None:
    with lent.lend(lease, encoder, times):
        for _ in range(times):
            encoder.encode(lease.frame)


def test_an_encoder_that_copies_keeps_nothing(stream: StreamSettings, pool: FramePool) -> None:
    with FramesInFlight() as lent, NullEncoder(stream, EncodeSettings()) as encoder:
        for _ in range(9):
            give(lent, encoder, pool.lend())
            assert free(pool) == 4


def test_an_encoder_that_lags_keeps_its_latest_frames(stream: StreamSettings, pool: FramePool) -> None:
    with FramesInFlight() as lent, Lagging(stream, EncodeSettings()) as encoder:
        found = []
        for _ in range(6):
            give(lent, encoder, pool.lend())
            found.append(free(pool))
        assert found == [3, 2, 1, 1, 1, 1]
    assert free(pool) == 4


def test_a_frame_that_is_encoded_often_counts_as_often(stream: StreamSettings, pool: FramePool) -> None:
    with FramesInFlight() as lent, Lagging(stream, EncodeSettings()) as encoder:
        give(lent, encoder, pool.lend(), times=2)
        give(lent, encoder, pool.lend(), times=5)
        assert free(pool) == 3
        give(lent, encoder, pool.lend(), times=3)
        assert free(pool) == 3


def test_what_is_lent_comes_back_after_a_failure_when_the_encoder_is_closed(
    stream: StreamSettings, pool: FramePool
) -> None:
    freed_at_close = []

    class Watched(Lagging):
        def close(self) -> None:
            freed_at_close.append(free(pool))
            super().close()

    def fail() -> None:
        with FramesInFlight() as lent, Watched(stream, EncodeSettings()) as encoder:
            give(lent, encoder, pool.lend())
            with lent.lend(pool.lend(), encoder, 1):
                encoder.encode(np.zeros(1, np.uint8))

    with pytest.raises(Exception, match="expected a C-contiguous"):
        fail()
    assert freed_at_close == [2]
    assert free(pool) == 4
