"""Decoding in children whose heap is filled with a byte of our choice: what comes out may not depend on it.

glibc writes the byte over every block that is allocated or freed (mallopt(3), M_PERTURB). A decoder that hands out
memory which it never wrote gives another picture under another byte. Blocks up to 32 MiB are kept on the heap, for
fresh pages from the kernel are zero under any filling.
"""

import hashlib
import os
import select
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

FILLS = (0x35, 0xCA)
MAX_PIXELS = 50_000_000
_ROOT = Path(__file__).parents[2]
_TIME_LIMIT_S = 60.0  # of the processor
_LOOK_S = 5.0


class Died(Exception):
    """A child ended, or did not answer, while it decoded."""


class Child:
    """One process that decodes files, one after the other."""

    def __init__(self, fill: int, of: str = "pictures") -> None:
        self.environment = os.environ | {
            "GLIBC_TUNABLES": f"glibc.malloc.perturb={fill}:glibc.malloc.mmap_threshold={32 << 20}",
            "PYTHONPATH": str(_ROOT),
        }
        self._of = of
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.pictures.filled", self._of],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.environment,
            cwd=_ROOT,
        )

    def outcome(self, data: bytes) -> str:
        """Return a digest of what was decoded, or the words of the refusal.

        Raises:
            Died: the process ended or hung; another one is there for the next file.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("the child has pipes")
        ready: list[object] = [self]
        try:
            self._process.stdin.write(struct.pack("<I", len(data)) + data)
            self._process.stdin.flush()
            ready = self._wait(self._process.stdout)
            line = self._process.stdout.readline().decode() if ready else ""
        except OSError:
            line = ""
        if line:
            return line.strip()
        self.close()
        code = self._process.returncode
        self._start()
        raise Died(f"the child ended with {code}" if ready else f"no answer within {_TIME_LIMIT_S:g} s")

    def _wait(self, answers: IO[bytes]) -> list[object]:
        """Wait for an answer as long as the child may work at one file, however little of the machine it gets."""
        of_child = psutil.Process(self._process.pid)
        began = of_child.cpu_times().user
        while not (ready := select.select([answers], [], [], _LOOK_S)[0]):
            if of_child.cpu_times().user - began > _TIME_LIMIT_S:
                break
        return list(ready)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was still to be written goes nowhere
                    pipe.close()
        self._process.wait()


class Pair:
    """Two children under different fillings."""

    def __init__(self, children: list[Child]) -> None:
        self._children = children

    def outcome(self, data: bytes) -> str:
        """Return what both children say.

        Raises:
            AssertionError: they differ.
            Died: one of them ended.
        """
        first, second = (child.outcome(data) for child in self._children)
        if first != second:
            raise AssertionError(f"what comes out depends on what was in memory before: {first} and {second}")
        return first


@contextmanager
def pair(of: str = "pictures") -> Iterator[Pair]:
    """Lend two children that decode pictures, sounds or videos."""
    with ExitStack() as stack:
        children = [Child(fill, of) for fill in FILLS]
        for child in children:
            stack.callback(child.close)
        yield Pair(children)


def _picture(data: bytes) -> str:
    from renderer.pictures.decode import decode

    picture = decode(data, background=(10, 20, 30), max_pixels=MAX_PIXELS)
    return f"shows {picture.size} {hashlib.blake2b(picture.pixels.data, digest_size=12).hexdigest()}"


def _sound(data: bytes) -> str:
    from renderer.media.sound.decode import Reading, read_header
    from renderer.pictures.marks import Marks

    digest, size = hashlib.blake2b(digest_size=12), 0
    for piece in Reading(read_header(data, ("audio", 0, "url"), Marks()), Marks()):
        digest.update(piece.tobytes())
        size += piece.shape[1]
    return f"sounds {size} {digest.hexdigest()}"


def _video(data: bytes) -> str:
    from renderer.config import RenderSettings
    from renderer.media.frame import picture_of
    from renderer.media.video import VideoFile
    from renderer.pictures.marks import Marks

    video = VideoFile(data, ("video_url",), RenderSettings(), Marks())
    pictures = [picture_of(video.frame(wanted)) for wanted in ("first", "middle", "last")]
    return f"plays {hashlib.blake2b(b''.join(map(bytes, pictures)), digest_size=12).hexdigest()}"


_DECODERS = {"pictures": _picture, "sounds": _sound, "videos": _video}


def main() -> None:
    """Decode what comes on standard input, in the child."""
    from renderer.errors import JobError

    decoded = _DECODERS[sys.argv[1]]
    stream, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "w")
    os.dup2(
        2, 1
    )  # libraries print as well: OpenJPH, which reads OpenEXR's HTJ2K, tells stdout of a file that ends early
    while head := stream.read(4):
        data = stream.read(struct.unpack("<I", head)[0])
        try:
            answer = decoded(data)
        except JobError as error:
            answer = f"refuses: {type(error).__name__}: {error}"
        answers.write(" ".join(answer.split()) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
