"""`python -m tests.nvenc_standin.child SOCKET` makes children that call one function each and tell what it returned.

It imports what they all need and waits at the socket. Each question is answered by a process of its own, which begins
as a copy of this one and so need not import it again: that is most of what a child would cost.
"""

import contextlib
import gc
import importlib
import json
import logging
import os
import select
import signal
import socket
import sys
import tempfile
from typing import BinaryIO

from protocol.schema import RenderRequest
from renderer.config import Settings

_PRELOADED = (
    "tests.encode.nvenc.nvenc_children",
    "tests.encode.nvenc.nvenc_jobs",
    "cuda.bindings.driver",  # which opens the driver when it is first called
)  # the wheel itself is imported by children only


def serve(address: str) -> None:
    """Answer one question per connection until standard input ends, with whoever began this."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who answers is reaped by the kernel
        print("ready", flush=True)  # noqa: T201 - waited for
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                answer(connection)
                return
            connection.close()


def answer(connection: socket.socket) -> None:
    """Let a child do what is asked, send how it ended and what it wrote, and end.

    The child is killed if nobody waits any more.
    """
    question = json.loads(connection.makefile("rb").readline())
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if (child := os.fork()) == 0:
            connection.close()
            call(question, out, err)
            return
        connection.sendall(f"{child}\n".encode("ascii"))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        told = {"code": code, "stdout": written(out), "stderr": written(err)}
    with contextlib.suppress(BrokenPipeError), connection:
        connection.sendall(json.dumps(told).encode())
    os._exit(0)


def written(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def call(question: dict[str, object], out: BinaryIO, err: BinaryIO) -> None:
    """Become the child: its environment, its standard files, its function; then end as any program does."""
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    environment = question["environment"]
    assert isinstance(environment, dict)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True)
    function = getattr(importlib.import_module(str(question["module"])), str(question["what"]))
    print(json.dumps(function(**question["told"])))  # type: ignore[arg-type] # noqa: T201 - how the answer gets back


if __name__ == "__main__":
    for name in _PRELOADED:
        importlib.import_module(name)
    Settings()  # whose models are built when they are first used
    RenderRequest.model_validate({"images": [{"url": "data:,"}]})
    gc.freeze()  # a copy would else look through, and so make its own, all memory of this process when it ends
    serve(sys.argv[1])
