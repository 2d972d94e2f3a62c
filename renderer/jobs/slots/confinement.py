"""The rights that a worker gives up before it decodes files of strangers.

A decoder is native code, and one of them has returned memory that it had never written, which held the picture of
another client. A worker therefore overwrites the memory that it frees. It also dumps no core, which would hold
pictures, writes no endless file, and gains no rights by running a program.

No limit on the address space: CUDA reserves hundreds of gigabytes of it that it never uses. What is allocated has one,
RLIMIT_DATA (worker.py).

By Landlock, Linux lets a process without rights give up the files that it does not need, for itself and its children.
What was open stays open, and only the thread that asks is bound, with all that it begins later: a worker asks before
it has another thread. What is bound can neither look into a process that is not, nor, since Linux 6.12, send it a
signal. The network is left as it is. Source: landlock(7) and Linux's uapi/linux/landlock.h.
"""

import ctypes
import os
import resource
import stat
import struct
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

_M_PERTURB = -6  # malloc.h of glibc: the byte that freed memory is filled with; new memory gets its complement
_FILL = 0xA5
_PR_SET_NO_NEW_PRIVS = 38  # prctl.h of Linux
_PR_GET_NO_NEW_PRIVS = 39


def overwrite_memory() -> bool:
    """Have malloc fill the memory that is freed or handed out; return whether this C library can.

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
    """Return why running a program could give a worker further rights; None if it cannot."""
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


_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every machine
_ASK_VERSION = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_CHANGE_DIR = sum(1 << bit for bit in range(4, 13))  # make and remove all kinds of names
_REFER, _TRUNCATE = 1 << 13, 1 << 14  # since the versions 2 and 3
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_SCOPES: Final = 1 << 0 | 1 << 1  # sockets without a name in the file system, and signals; since version 6

_READ = _READ_FILE | _READ_DIR
_RUN = _READ | _EXECUTE
_CHANGE = _READ | _WRITE_FILE | _CHANGE_DIR | _REFER | _TRUNCATE

_Found = tuple[Path, int, int]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Roots:
    """Directories and files that a process may use, with all below, as they were found; see `find`.

    Attributes:
        run: programs and libraries.
        read: what is read only.
        change: where files are read, made, written and removed.
    """

    run: frozenset[_Found] = frozenset()
    read: frozenset[_Found] = frozenset()
    change: frozenset[_Found] = frozenset()

    def __or__(self, other: Self) -> "Roots":
        return Roots(self.run | other.run, self.read | other.read, self.change | other.change)


def find(*places: Path) -> frozenset[_Found]:
    """Return the places that exist, each with its device and inode, since another file may get its name later."""
    found = set()
    for place in places:
        try:
            there = place.stat()
        except OSError:
            continue
        found.add((place, there.st_dev, there.st_ino))
    return frozenset(found)


def refusal() -> str | None:
    """Return why files cannot be confined here; None if they can."""
    try:
        _version()
    except OSError as error:
        return error.strerror
    return None


def confine(roots: Roots) -> None:
    """Let this thread, and all that it begins, use nothing but these; it must have given up new privileges.

    Raises:
        OSError: it is not confined.
    """
    version = _version()
    handled = _handled(version)
    attributes = struct.pack("=QQQ", handled, 0, _SCOPES) if version >= 6 else struct.pack("=Q", handled)
    rules = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    try:
        for found, rights in ((roots.run, _RUN), (roots.read, _READ), (roots.change, _CHANGE)):
            for place, _, _ in found:
                _allow(rules, place, rights & handled)
        _call(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def confined(roots: Roots, call: Callable[[], T]) -> T:
    """Call on a thread of its own that is confined, and return what that returns; a child that it begins is, too.

    Raises:
        OSError: it cannot be confined.
    """

    def confine_and_call() -> T:
        give_up_new_privileges()
        confine(roots)
        return call()

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(confine_and_call).result()


def _version() -> int:
    if sys.platform != "linux":
        raise OSError(0, f"{sys.platform} has no Landlock")
    try:
        return _call(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    except OSError as error:
        raise OSError(error.errno, f"this kernel has no Landlock, or it is off ({error.strerror})") from error


def _handled(version: int) -> int:
    newer = (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    return _EXECUTE | _WRITE_FILE | _READ | _CHANGE_DIR | newer


def _allow(rules: int, place: Path, rights: int) -> None:
    """Add a rule for a place, unless it does not exist any more."""
    try:
        descriptor = os.open(place, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_FILES
        _call(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    result = int(ctypes.CDLL(None, use_errno=True).syscall(number, *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
