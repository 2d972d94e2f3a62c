"""A call that does not return is noticed, though not where it is the process that stood still."""

import os
import signal
import subprocess
import sys
import threading
import time

from renderer.encode.nvenc.session import StallWatch


def test_a_block_that_never_ends_is_told_once() -> None:
    told = threading.Event()
    watch = StallWatch(0.05, told.set)
    with watch.watching():
        assert told.wait(30)
    watch.close()


def test_a_process_that_was_stopped_does_not_blame_the_device() -> None:
    lines = """
import time
from renderer.encode.nvenc.session import StallWatch
watch = StallWatch(2, lambda: print("stalled", flush=True))
with watch.watching():
    print("inside", flush=True)
    input()
watch.close()
time.sleep(0.1)
print("over", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", lines], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"inside\n"
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        time.sleep(2.5)  # longer than the limit
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.send_signal(signal.SIGCONT)
        assert child.stdout.read() == b"over\n"
