"""What the server that workers are forked from does before the first one; nobody else may import this.

It ends with those who use it, who all hold the other end of the only pipe that multiprocessing gives it: it watches
that itself, but not while it is stopped, nor while it imports what a worker needs. A terminal that is closed must not
end it earlier, because its daemon then drains; multiprocessing itself makes it ignore Ctrl-C.
"""

import fcntl
import os
import signal
import stat
from pathlib import Path

from renderer.processes import tie


def _inherited_pipes() -> list[int]:
    """Return the pipes beyond stderr that this process reads from."""
    numbers = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    return [number for number in numbers if number > 2 and _is_read_from(number)]


def _is_read_from(number: int) -> bool:
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(number).st_mode)
        return is_pipe and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    except OSError:  # the one that the directory was read by
        return False


signal.signal(signal.SIGHUP, signal.SIG_IGN)
for _pipe in _inherited_pipes():
    tie(_pipe, os.getpid())

import Imath  # noqa: E402, F401 - so that no worker has to
import OpenEXR  # noqa: E402, F401 - as above

import renderer.encode.selftest  # noqa: E402 - as above
import renderer.jobs.slots.rendering  # noqa: E402 - as above
import renderer.media.mp4  # noqa: E402 - as above
import renderer.pictures.kept  # noqa: E402 - as above
from protocol.schema import Fault, Progress, ResultWarning  # noqa: E402 - as above
from renderer.pictures.header import READERS, reader_of  # noqa: E402 - as above

for _model in (Progress, Fault, ResultWarning):
    _model.model_rebuild()  # as above
for _format in READERS:
    reader_of(_format)  # as above
reader_of("HEIC").library()
renderer.pictures.kept.program()  # as above
