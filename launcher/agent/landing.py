"""The first code of an agent that comes to a host over its stdin: unpacks the others, once for each version, and becomes it.

Its source is the first line that arrives, so that nothing of ours has to be there; a line of JSON follows: the ``digest`` of all
files, and the agent's ``options``. It answers MARK, and ``+`` if they are here; ``-`` if it is to be sent them, which are then a
zip, after its size in eight bytes. Whatever a login shell prints comes before MARK.

Where no end of a connection is in our stdin, as in a step that Slurm starts on all its nodes at once, the line has ``dial``: this
process then makes one.

Where the agent is here already, and only the connection to it was lost, the line has ``join``, the agent's socket, and ``have``, how
much of what it said has arrived. This process then hands its own connection over (``tether.py``), which answers MARK, ``=`` and, in
eight bytes, how much of what it was told has arrived; or MARK and ``!``: there is no such agent any more.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - whatever interpreter is there reads this
    sys.exit("Python 3.11 or later is needed, not " + sys.version.split()[0] + ": " + sys.executable)

import errno
import gc
import json
import os
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from io import RawIOBase

MARK = b"\0tflaunch\0"
# Seconds to reach the launcher.
DIAL = 20.0
# Bytes of a count.
COUNT = 8


def land() -> None:
    """Be the agent."""
    # Unbuffered: what follows the zip is for the agent.
    source = open(0, "rb", 0, closefd=False)  # noqa: SIM115
    order = json.loads(source.readline())
    if "dial" in order:
        berth = order["dial"]["places"][os.environ["SLURMD_NODENAME"]]
        dial(berth["port"], order["dial"]["token"])
        order.get("options", {})["mooring"] = berth["mooring"]
    if "join" in order:
        join(order["join"], order["have"])
    try:
        folder = place(order["digest"], source)
        options = order["options"]
        if options.get("lease"):
            options["mooring"] = moorings() + "/" + options["mooring"]
    except OSError as error:
        sys.exit("cannot keep the agent: " + str(error))
    sys.path.append(folder)
    # Until it is all there: main has it enabled again.
    gc.disable()
    from launcher.agent.__main__ import main

    main(json.dumps(options))


def dial(port: int, token: str) -> None:
    """Have a connection to the launcher for stdin and stdout. Slurm tells each task where srun runs."""
    import socket

    where = os.environ["SLURM_LAUNCH_NODE_IPADDR"], port
    try:
        connection = socket.create_connection(where, DIAL)
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(token.encode())
    except OSError as error:
        sys.exit(f"{os.environ['SLURMD_NODENAME']} cannot reach the launcher at {where[0]}:{port}: {error}")
    for descriptor in (0, 1):
        os.dup2(connection.fileno(), descriptor)
    connection.close()


def join(mooring: str, have: int) -> None:
    """Give an agent this connection, and wait until it lets go of it."""
    import socket

    caller = socket.socket(socket.AF_UNIX)
    try:
        caller.connect(moorings() + "/" + mooring)
        socket.send_fds(caller, [json.dumps({"have": have}).encode()], [0, 1, 2])
    except OSError:
        answer(b"!")
        sys.exit("its agent is gone")
    caller.recv(1)
    sys.exit(1)


def moorings() -> str:
    """The folder of the agents' sockets. Not in a home, which hosts may share, nor where a login's end removes it."""
    folder = "/tmp/tflaunch-" + str(os.getuid())  # noqa: S108 - made for its owner alone, and refused if it is not
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    status = os.lstat(folder)
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(errno.EPERM, "not this user's alone", folder)
    return folder


def place(digest: str, source: "RawIOBase") -> str:
    """The folder that holds the files of this digest."""
    base = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "tflaunch")
    folder = os.path.join(base, "agent-" + digest[:16])
    if os.path.isdir(folder):
        answer(b"+")
        keep(folder)
        return folder
    os.makedirs(base, mode=0o700, exist_ok=True)
    answer(b"-")
    size = int.from_bytes(receive(COUNT, source), "big")
    unpack(receive(size, source), digest, base, folder)
    keep(folder)
    return folder


def keep(folder: str) -> None:
    """Have it seen that this folder is in use: open for as long as the agent lives, and used today (leftovers.py)."""
    try:
        os.open(folder, os.O_RDONLY)
        os.utime(folder)
    except OSError:
        pass  # it runs all the same from where nothing can be written


def unpack(data: bytes, digest: str, base: str, folder: str) -> None:
    import io
    import shutil
    import tempfile
    import zipfile

    archive = zipfile.ZipFile(io.BytesIO(data))
    if digest_of((name, archive.read(name)) for name in archive.namelist()) != digest:
        sys.exit("the agent did not arrive as it was sent")
    fresh = tempfile.mkdtemp(dir=base)
    try:
        archive.extractall(fresh)
        os.rename(fresh, folder)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        # Another run may have come first.
        if not os.path.isdir(folder):
            raise


def digest_of(files: "Iterable[tuple[str, bytes]]") -> str:
    """SHA-256 of all names and contents. Not of the zip, which takes longer to make than all else before the first ssh."""
    import hashlib

    seen = hashlib.sha256()
    for name, content in files:
        seen.update(b"%b\0%d\0%b" % (name.encode(), len(content), content))
    return seen.hexdigest()


def answer(whether: bytes) -> None:
    os.write(1, MARK + whether)


def receive(size: int, source: "RawIOBase") -> bytes:
    data = b""
    while len(data) < size:
        more = source.read(size - len(data))
        if not more:
            sys.exit(1)
        data += more
    return data


if __name__ == "__main__":
    land()
