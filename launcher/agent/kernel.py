"""What Python's standard library does not reach: a few Linux calls, through ctypes. Elsewhere they do nothing.

Sources: prctl(2), pidfd_open(2), proc(5), fcntl(2), unshare(2), setns(2), netdevice(7), user_namespaces(7), capabilities(7).
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LINUX = sys.platform == "linux"
# Pages can be moved from pipe to pipe.
CAN_SPLICE = LINUX and hasattr(os, "splice")

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAPABILITIES_3 = 0x20080522
_CAP_NET_ADMIN = 12
_CAP_SYS_ADMIN = 21
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_F_SETPIPE_SZ = 1031
_F_GETPIPE_SZ = 1032
# As on x86, Arm and RISC-V; Python's own is in a library of 0.5 ms.
_FIONREAD = 0x541B
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1

if LINUX:
    import ctypes

    _libc = ctypes.CDLL(None, use_errno=True)

    def _prctl(option: int, value: int, more: int = 0) -> None:
        _libc.prctl(option, value, more, 0, 0)

    def _unshare(flags: int) -> None:
        _check(_libc.unshare(flags))

    def _check(status: int) -> None:
        if status != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own, so that none escapes by forking twice."""
    if LINUX:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signum: int, parent: int) -> None:
    """Receive ``signum`` when the process ``parent`` dies; if it is dead already, end here."""
    if LINUX:
        _prctl(_PR_SET_PDEATHSIG, signum)
        if os.getppid() != parent:
            os._exit(1)


def session_of(pid: int) -> int:
    """A descriptor that becomes readable when the login ends that a process belongs to.

    Of the process that has started its session's leader, that is: sshd, which makes each command one, be it a wrapper or a shell.

    Raises:
        OSError: it has ended already, or the kernel has no such descriptors (before Linux 5.3).
    """
    if not LINUX:
        raise OSError(errno.ENOSYS, "descriptors of processes are a Linux feature")
    with open(f"/proc/{os.getsid(pid)}/stat", "rb") as file:
        parent = int(file.read().rpartition(b")")[2].split()[1])
    return os.pidfd_open(parent)


_descriptors: tuple[int, int] | None = None


def allow_descriptors() -> None:
    """Raise this process's limit of open descriptors as far as it may: there are two for each worker, or a log file."""
    global _descriptors  # noqa: PLW0603 - the limit is the process's, so is the memory of it
    import resource

    _descriptors = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def keep_descriptors() -> None:
    """Have no program that this process runs inherit what it has inherited itself, but for its standard streams.

    A lock, say, that a script holds by an open file: whoever inherits that holds it too.
    """
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2:
                with suppress(OSError):  # the one that the list was read by
                    os.set_inheritable(int(name), False)


@contextmanager
def users_limits() -> Iterator[None]:
    """Have, for a while, the limit from before ``allow_descriptors``: what is started meanwhile gets what its user has."""
    if _descriptors is None or _descriptors[0] == _descriptors[1]:
        yield
        return
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, _descriptors)
    try:
        yield
    finally:
        hard = _descriptors[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def restore_descriptors() -> None:
    """Go back to the limit from before ``allow_descriptors``, for good."""
    global _descriptors  # noqa: PLW0603 - see above
    if _descriptors is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, _descriptors)
        _descriptors = None


def signal_about(descriptor: int, pid: int, signum: int) -> None:
    """Have the kernel send ``signum`` to a process when there is news of a descriptor: the other end of its pipe is closed, say.

    Raises:
        OSError: it will not.
    """
    if LINUX:
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signum)
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, pid)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)


def widen(pipe: int) -> None:
    """Make a pipe as large as an unprivileged user may (1 MiB, unless the system says otherwise; 64 KiB by default)."""
    if LINUX:
        import fcntl

        # Refused beyond a user's share of pipe memory (pipe(7)); any size works, only slower.
        with suppress(OSError):
            fcntl.fcntl(pipe, _F_SETPIPE_SZ, 1 << 20)


def held_by(pipe: int) -> int:
    """How many bytes lie in a pipe; 0 where the system does not say."""
    import fcntl

    with suppress(OSError):
        return int.from_bytes(fcntl.ioctl(pipe, _FIONREAD, bytes(4)), sys.byteorder)
    return 0


def room_in(pipe: int) -> int:
    """How many more bytes a pipe takes, about; 0 where it is no pipe.

    It takes so many pages, however little each holds: those of 10 kB lines, say, hold five sixths of what they could.
    """
    import fcntl

    try:
        return (fcntl.fcntl(pipe, _F_GETPIPE_SZ) - held_by(pipe)) * 3 // 4
    except OSError:
        return 0


def keep_memory() -> None:
    """Let memory that is freed be there for what comes next.

    glibc gives large pieces back to the kernel, and takes them again for each piece of output: with 2.36, that was half of
    all time for 2,000 MB, for a fault and a cleared page for each 4 KiB. Source: mallopt(3).
    """
    if LINUX:
        with suppress(AttributeError):  # another libc
            _libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
            _libc.mallopt(_M_TRIM_THRESHOLD, 64 << 20)


def enter_private_network() -> None:
    """Move this process into a new network namespace that has a loopback interface and nothing else.

    Without privilege this takes a user namespace as well; the user keeps his own ids in it.

    Raises:
        OSError: the kernel, or its settings, do not allow it; ENOSYS where there are no namespaces.
    """
    if not LINUX:
        raise OSError(errno.ENOSYS, "network namespaces are a Linux feature")
    uid, gid = os.geteuid(), os.getegid()
    try:
        _unshare(_CLONE_NEWNET)
    except PermissionError:
        _unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        _map_ids(uid, gid)
    _raise_loopback()


def new_network() -> int:
    """Make another network namespace, with a loopback interface and nothing else. Returns a descriptor that stands for it.

    It lasts as long as the descriptor, or as long as a process is in it.

    Raises:
        OSError: it may not be made; EPERM for one who has neither privilege nor a private network.
    """
    home = _own_network()
    try:
        _unshare(_CLONE_NEWNET)
        try:
            _raise_loopback()
            return _own_network()
        finally:
            enter_network(home)
    finally:
        os.close(home)


def enter_network(network: int) -> None:
    """Move this process into the network namespace that a descriptor stands for."""
    _check(_libc.setns(network, _CLONE_NEWNET))


@contextmanager
def inside(network: int) -> Iterator[None]:
    """Be in a network namespace for a while."""
    home = _own_network()
    try:
        enter_network(network)
        yield
    finally:
        enter_network(home)
        os.close(home)


def _own_network() -> int:
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def keep_network_rights() -> None:
    """Have the programs that this process runs manage and enter the networks of its user namespace, as it may itself.

    Raises:
        OSError: it may not do so itself.
    """
    if os.geteuid() == 0:
        return  # root keeps them anyhow
    header, sets = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0), (ctypes.c_uint32 * 6)()
    _check(_libc.capget(header, sets))
    # The first three are effective, permitted and inheritable, for the capabilities below 32.
    sets[2] |= 1 << _CAP_NET_ADMIN | 1 << _CAP_SYS_ADMIN
    _check(_libc.capset(header, sets))
    for capability in (_CAP_NET_ADMIN, _CAP_SYS_ADMIN):
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)


def _map_ids(uid: int, gid: int) -> None:
    # The kernel accepts an unprivileged gid_map only after setgroups is denied (user_namespaces(7)).
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _raise_loopback() -> None:
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
