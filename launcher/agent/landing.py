"""The first code of an agent that comes to a host over its stdin: unpacks the others, once for each version, and becomes it.

Its source is the first line that arrives, so that nothing of ours has to be there; a line of JSON follows: ``digest`` of the
zip, its ``size``, and the agent's ``options``. It answers MARK, and ``-`` if it is to be sent the zip, ``+`` if it is here.
Whatever a login shell prints comes before MARK.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - whatever interpreter is there reads this
    sys.exit("Python 3.11 or later is needed, not " + sys.version.split()[0] + ": " + sys.executable)

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import RawIOBase

MARK = b"\0tflaunch\0"


def land() -> None:
    """Be the agent."""
    # Unbuffered: what follows the zip is for the agent.
    source = open(0, "rb", 0, closefd=False)  # noqa: SIM115
    order = json.loads(source.readline())
    try:
        folder = place(order["digest"], order["size"], source)
    except OSError as error:
        sys.exit("cannot keep the agent: " + str(error))
    sys.path.append(folder)
    from launcher.agent.__main__ import main

    main(json.dumps(order["options"]))


def place(digest: str, size: int, source: "RawIOBase") -> str:
    """The folder that holds what is in the zip."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    base = os.path.join(cache, "tflaunch")
    folder = os.path.join(base, "agent-" + digest[:16])
    if os.path.isdir(folder):
        answer(b"+")
        keep(folder)
        return folder
    os.makedirs(base, mode=0o700, exist_ok=True)
    answer(b"-")
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
    import hashlib
    import io
    import shutil
    import tempfile
    import zipfile

    if hashlib.sha256(data).hexdigest() != digest:
        sys.exit("the agent did not arrive as it was sent")
    fresh = tempfile.mkdtemp(dir=base)
    try:
        zipfile.ZipFile(io.BytesIO(data)).extractall(fresh)
        os.rename(fresh, folder)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        # Another run may have come first.
        if not os.path.isdir(folder):
            raise


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
