"""What holds a submission: limits, no network, no other files, no other processes.

Four walls, each of which stands alone, so that a machine that lacks one is not without
any: resource limits of the system; a network namespace of its own; Landlock, which
bounds the files, and a filter of system calls (both Linux, both for any user); and an
audit hook in Python, which says in words what is not allowed.

What this does not hold: a fault in the kernel; a submission that measures time or reads
what the interpreter may read, such as installed packages. The hook alone, where the
kernel gives none of the other walls, stops mistakes and pranks; it is no prison.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["confine"]

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 38, 22


def confine(
    folder: Path, readable: Iterable[Path], listable: Iterable[Path], memory: int
) -> list[str]:
    """Build all walls that this machine has; there is no way back.

    Args:
        folder: The only folder that may be written.
        readable: Files and folders that may be read, besides.
        listable: Folders whose names may be listed, and whose files may not be read.
        memory: The most bytes of private memory.

    Returns:
        The names of the walls that stand.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    readable, listable = list(readable), list(listable)
    linux = sys.platform == "linux"
    walls = {
        "limits": lambda: _limits(memory),
        "network": lambda: linux and _no_network(libc),
        "files": lambda: linux and _landlock(libc, folder, readable, listable),
        "capabilities": lambda: linux and _no_capabilities(libc),
        "system calls": lambda: linux and _seccomp(libc),
        "audit hook": lambda: _audit(folder, readable, listable),
    }
    return [name for name, build in walls.items() if build()]


def _limits(memory: int) -> bool:
    for name, limit in (
        ("RLIMIT_DATA", memory),
        ("RLIMIT_FSIZE", 2**24),
        ("RLIMIT_NOFILE", 128),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NPROC", 0),  # no limit for root: there the filter holds
    ):
        hard = resource.getrlimit(getattr(resource, name))[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(getattr(resource, name), (limit, limit))
    return True


def _no_network(libc: ctypes.CDLL) -> bool:
    new_user, new_network = 0x10000000, 0x40000000
    return libc.unshare(new_network) == 0 or libc.unshare(new_user | new_network) == 0


def _no_capabilities(libc: ctypes.CDLL) -> bool:
    """Root, and the owner of a namespace, gives up what it could do beyond others."""
    header = struct.pack("Ii", 0x20080522, 0)
    return libc.capset(header, bytes(24)) == 0


# Landlock: https://docs.kernel.org/userspace-api/landlock.html

READ_FILE, READ_DIR, WRITE = 1 << 2, 1 << 3, (1 << 1) | (1 << 14)
CHANGE_DIR = sum(1 << bit for bit in (4, 5, 7, 8))  # remove and make files, folders
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446


def _landlock(
    libc: ctypes.CDLL, folder: Path, readable: list[Path], listable: list[Path]
) -> bool:
    version = libc.syscall(CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    known = (1 << min(16, {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16))) - 1
    network = 3 if version >= 4 else None  # binding and connecting TCP
    attributes = struct.pack("QQ" if network else "Q", *filter(None, (known, network)))
    ruleset = libc.syscall(CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    allowed = [(path, READ_FILE | READ_DIR) for path in readable]
    allowed += [(path, READ_DIR) for path in listable]
    allowed += [(folder, READ_FILE | READ_DIR | WRITE | CHANGE_DIR)]
    for path, access in allowed:
        _allow(libc, ruleset, path, access & known)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    done = libc.syscall(RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return done


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, access: int) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        access &= READ_FILE
    beneath = os.open(path, os.O_PATH)
    libc.syscall(ADD_RULE, ruleset, 1, struct.pack("=Qi", access, beneath), 0)
    os.close(beneath)


# A filter of system calls: those that start, stop or reach others are refused.

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
REFUSED = {
    "x86_64": (
        *(41, 42, 43, 49, 50, 53, 288),  # sockets
        *(57, 58, 59, 322),  # fork, vfork, exec
        *(62, 200, 234, 129, 297),  # signals to others
        *(101, 310, 311, 424, 434, 438),  # other processes
        *(165, 166, 155, 161, 272, 308),  # mounts and namespaces
        *(248, 249, 250, 298, 321, 323, 425, 426, 427),  # keys, perf, bpf, io_uring
        302,  # limits of others
    ),
    "aarch64": (
        *(198, 199, 200, 201, 202, 203, 242),
        *(221, 281),
        *(129, 130, 131, 138, 240),
        *(117, 270, 271, 424, 434, 438),
        *(40, 39, 41, 51, 97, 268),
        *(217, 218, 219, 241, 280, 282, 425, 426, 427),
        261,
    ),
}
CLONE, CLONE3 = {"x86_64": 56, "aarch64": 220}, 435
FCNTL, SETOWN, SETOWN_EX = {"x86_64": 72, "aarch64": 25}, 8, 15
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOSYS, CLONE_THREAD = 1, 38, 0x00010000


def _seccomp(libc: ctypes.CDLL) -> bool:
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        return False
    program = _program(machine)
    code = ctypes.create_string_buffer(
        b"".join(struct.pack("HBBI", *p) for p in program)
    )
    fields = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return libc.prctl(PR_SET_SECCOMP, 2, ctypes.c_char_p(fields), 0, 0) == 0


def _program(machine: str) -> list[tuple[int, int, int, int]]:
    """Instructions: code, jumps if it holds and if it does not, value."""
    program = [
        (LOAD, 0, 0, 4),
        (EQUAL, 1, 0, ARCHITECTURES[machine]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, 0),
        (ANY_BIT, 0, 1, 0x40000000),  # the x32 calls of x86_64
        (RETURN, 0, 0, KILL),
    ]
    for number in REFUSED[machine]:
        program += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE | EPERM)]
    # glibc falls back to clone, whose flags can be read: threads are allowed.
    program += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, REFUSE | ENOSYS)]
    program += [
        (EQUAL, 0, 3, CLONE[machine]),
        (LOAD, 0, 0, 16),
        (ANY_BIT, 1, 0, CLONE_THREAD),
        (RETURN, 0, 0, REFUSE | EPERM),
    ]
    program += [  # what fcntl sends signals to may be another process
        (EQUAL, 0, 4, FCNTL[machine]),
        (LOAD, 0, 0, 24),
        (EQUAL, 1, 0, SETOWN),
        (EQUAL, 0, 1, SETOWN_EX),
        (RETURN, 0, 0, REFUSE | EPERM),
    ]
    return [*program, (RETURN, 0, 0, ALLOW)]


# The audit hook: https://docs.python.org/3/library/audit_events.html

FORBIDDEN = (
    *("ctypes.", "fcntl.", "ftplib.", "http.client.", "imaplib.", "mmap.", "nntplib."),
    *("os.exec", "os.fork", "os.kill", "os.posix_spawn", "os.putenv", "os.spawn"),
    *("os.startfile", "os.system", "os.unsetenv", "os.chmod", "os.chown", "os.link"),
    *("os.symlink", "os.setxattr", "pty.", "resource.", "signal.pthread", "smtplib."),
    *("socket.", "subprocess.", "syslog.", "telnetlib.", "urllib.", "webbrowser."),
    *("gc.get_", "sys.setprofile", "sys.settrace", "sys.addaudithook"),
    *("sys.monitoring", "code.__new__", "function.__new__", "cpython.run_"),
)
PATHS = {"open", "os.listdir", "os.scandir", "os.chdir", "os.mkdir", "os.remove"}
PATHS |= {"os.rename", "os.rmdir", "os.truncate", "os.utime", "shutil.rmtree"}


def _audit(folder: Path, readable: list[Path], listable: list[Path]) -> bool:
    own = f"{folder}{os.sep}"
    roots = tuple(f"{path}{os.sep}" for path in readable)
    files, folders = frozenset(map(str, readable)), frozenset(map(str, listable))
    forbidden, paths, resolve = FORBIDDEN, frozenset(PATHS), os.path.realpath

    def hook(event: str, arguments: tuple) -> None:
        if event.startswith(forbidden):
            raise PermissionError(f"a submission may not use {event}")
        if event not in paths:
            return
        for path in arguments[: 2 if event == "os.rename" else 1]:
            if type(path) is int or path is None:
                continue
            if type(path) not in (str, bytes):
                path = str(path)
            name = resolve(os.fsdecode(path))
            reads = event in ("os.listdir", "os.scandir") or (
                event == "open" and _reads(arguments)
            )
            inside = f"{name}{os.sep}".startswith(own)
            seen = reads and (name in files or name.startswith(roots))
            named = event in ("os.listdir", "os.scandir") and name in folders
            if not (inside or seen or named):
                raise PermissionError(f"a submission may not open {name}")

    sys.addaudithook(hook)
    return True


def _reads(arguments: tuple) -> bool:
    mode, flags = arguments[1], arguments[2]
    if isinstance(mode, str) and set(mode) & set("wax+"):
        return False
    return not (flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
