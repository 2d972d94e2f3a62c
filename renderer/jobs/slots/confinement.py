"""What a worker gives up before it decodes what strangers have sent.

A decoder is native code, and one of them has returned memory that it had never written: of a picture that somebody else
had sent. A worker therefore overwrites what it frees. It also dumps no core, which would hold pictures, writes no file
without end, and gains no rights by running a program.

No limit on the address space: CUDA reserves hundreds of gigabytes of it that it never uses. What is allocated has one,
RLIMIT_DATA (worker.py).
"""

import ctypes
import os
import resource
import sys

_M_PERTURB = -6  # malloc.h of glibc: the byte that freed memory is filled with; new memory gets its complement
_FILL = 0xA5
_PR_SET_NO_NEW_PRIVS = 38  # prctl.h of Linux
_PR_GET_NO_NEW_PRIVS = 39


def overwrite_memory() -> bool:
    """Have malloc fill what is freed, and what it hands out; return whether this C library can.

    Holds for all threads from now on. glibc leaves two kinds alone: blocks of at most 1032 bytes, which wait in a
    list of their thread, and blocks so large that each is mapped for itself, which the kernel has zeroed.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_PERTURB, _FILL))
    except AttributeError:  # musl and macOS have no such option
        return False


def limit_process(file_bytes: int) -> None:
    """Dump no core, write no file beyond this size, and gain no rights from programs; children inherit all of it.

    A write beyond the size fails with EFBIG: Python ignores SIGXFSZ.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = file_bytes if most == resource.RLIM_INFINITY else min(file_bytes, most)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    give_up_new_privileges()


def give_up_new_privileges() -> None:
    """Let no program that this thread begins gain rights; threads and processes that it begins inherit that."""
    if sys.platform == "linux" and _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise _failure("prctl(PR_SET_NO_NEW_PRIVS)")


def no_new_privs_refusal() -> str | None:
    """Say why a program could give a worker rights that it has not; None if none can."""
    if sys.platform != "linux":
        return f"{sys.platform} has no such flag"
    if _libc().prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) < 0:
        return os.strerror(ctypes.get_errno())
    return None


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _failure(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")
