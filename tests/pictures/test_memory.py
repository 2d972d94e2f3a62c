import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from renderer.errors import BackendError
from renderer.pictures.memory import FramePool, Lease


def test_frames_have_the_shape_of_nv12_and_lie_in_one_piece() -> None:
    with FramePool((6, 8), 1).lend() as lease:
        assert lease.frame.shape == (6, 8)
        assert lease.frame.dtype == np.uint8
        assert lease.frame.flags.c_contiguous


def test_frames_are_allocated_once_and_used_again() -> None:
    pool = FramePool((6, 8), 2)
    seen = set()
    for _ in range(10):
        with pool.lend() as lease:
            seen.add(lease.frame.ctypes.data)
    assert len(seen) == 2


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a frame"):
        FramePool((6, 8), 0)


def test_lend_waits_for_a_frame_to_come_back() -> None:
    pool = FramePool((6, 8), 1)
    lease = pool.lend()
    began = time.monotonic()
    threading.Timer(0.05, lease.release).start()
    assert pool.lend().frame is lease.frame
    assert time.monotonic() - began >= 0.05


def test_release_counts_once_however_often_and_wherever_it_is_called() -> None:
    pool = FramePool((6, 8), 2)
    lease, other = pool.lend(), pool.lend()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: lease.release(), range(100)))
    assert "1 of 2 free" in repr(pool)
    other.release()
    assert "2 of 2 free" in repr(pool)


def test_close_wakes_those_who_wait() -> None:
    pool = FramePool((6, 8), 1)
    lease = pool.lend()
    found: list[BaseException] = []

    def borrow() -> None:
        try:
            pool.lend()
        except BackendError as error:
            found.append(error)

    waiting = [threading.Thread(target=borrow) for _ in range(3)]
    for thread in waiting:
        thread.start()
    time.sleep(0.05)
    pool.close()
    pool.close()
    for thread in waiting:
        thread.join(60)
    assert len(found) == 3
    lease.frame[:] = 1
    lease.release()
    with pytest.raises(BackendError, match="closed"):
        pool.lend()


def test_no_frame_is_ever_lent_twice_at_one_time() -> None:
    pool = FramePool((6, 8), 3)
    out: set[int] = set()
    lock = threading.Lock()

    def borrow(_: int) -> None:
        lease: Lease = pool.lend()
        with lock:
            assert id(lease.frame) not in out
            out.add(id(lease.frame))
        time.sleep(0.0001)
        with lock:
            out.remove(id(lease.frame))
        lease.release()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(borrow, range(400)))
    assert "3 of 3 free" in repr(pool)
