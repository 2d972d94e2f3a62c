"""The least that a program of our parts can take: Python, OpenCV and the ffmpeg command that we run, and nothing else.

It checks nothing and knows one way: an interpreter that imports numpy and cv2, decodes with a thread for each core and
pipes each still once into an ffmpeg that has started meanwhile, and has the very options of `stillreel render`. Stills
are read at the reduced scale, are shrunk and get their luma as ours do, so that the pictures are as good; chroma is the
plain mean of four pixels, which is less work than ours.

It runs as a script of its own, `python bare.py WORK.json`, since importing a package would be more than the least.
"""

import os
import subprocess
import sys

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as ours: it starts threads that nothing here uses


def main() -> None:
    """Make the video that the file on the command line describes (`benchmarks.floor`)."""
    import json  # noqa: PLC0415 - the top of the module would delay the start of ffmpeg

    with os.fdopen(os.open(sys.argv[1], os.O_RDONLY)) as file:
        work = json.load(file)
    ffmpeg = subprocess.Popen(work["command"], stdin=subprocess.PIPE, bufsize=0)
    assert ffmpeg.stdin is not None  # it is a pipe
    _enlarge(ffmpeg.stdin.fileno())
    # ffmpeg starts while these are imported.
    from collections import deque  # noqa: PLC0415 - as above
    from concurrent.futures import Future, ThreadPoolExecutor  # noqa: PLC0415 - as above
    from functools import partial  # noqa: PLC0415 - as above

    import cv2  # noqa: F401, PLC0415 - as above

    threads = len(os.sched_getaffinity(0))
    read = partial(_still, size=tuple(work["size"]), reduction=work["reduction"])
    with ThreadPoolExecutor(threads) as pool:
        under_way: deque[Future[memoryview]] = deque()
        stills = iter(work["stills"])
        while under_way or stills.__length_hint__():
            while len(under_way) < 2 * threads and (path := next(stills, None)):
                under_way.append(pool.submit(read, path))
            rest = under_way.popleft().result()
            while rest:
                rest = rest[os.write(ffmpeg.stdin.fileno(), rest) :]
    ffmpeg.stdin.close()
    code = ffmpeg.wait()
    sys.stdout.flush()
    os._exit(code)


def _enlarge(pipe: int) -> None:
    import contextlib  # noqa: PLC0415 - as above
    import ctypes  # noqa: PLC0415 - as above
    import fcntl  # noqa: PLC0415 - as above

    with contextlib.suppress(AttributeError, OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)
        libc = ctypes.CDLL(None)
        for option, value in ((-3, 1 << 25), (-1, (1 << 31) - 1), (-8, 1)):  # malloc.h: keeps what is freed
            libc.mallopt(option, value)


def _still(path: str, size: tuple[int, int], reduction: int) -> memoryview:
    """Return the still as NV12 of BT.709 in limited range."""
    import cv2  # noqa: PLC0415 - as above
    import numpy as np  # noqa: PLC0415 - as above

    flags = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}[reduction]
    bgr = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    assert bgr is not None, path  # a still that is missing would make the least too small
    width, height = size
    if bgr.shape[:2] != (height, width):
        bgr = cv2.resize(bgr, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)
        bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
    blue, red = 0.0722, 0.2126
    luma = np.array([blue, 1 - blue - red, red])
    rows = [
        luma * 219,
        (np.array([1, 0, 0]) - luma) * 112 / (1 - blue),
        (np.array([0, 0, 1]) - luma) * 112 / (1 - red),
    ]
    matrix = np.hstack([np.stack(rows) / 255, [[16], [128], [128]]]).astype(np.float32)
    frame = np.empty((height * 3 // 2, width), np.uint8)
    cv2.extractChannel(cv2.transform(bgr, matrix), 0, dst=frame[:height])
    half = cv2.transform(cv2.resize(bgr, (width // 2, height // 2), interpolation=cv2.INTER_AREA), matrix)
    cv2.mixChannels([half], [frame[height:].reshape(height // 2, width // 2, 2)], [1, 0, 2, 1])
    return frame.data.cast("B")


if __name__ == "__main__":
    main()
