"""An agent that comes to its host over the connection that it will speak over, and is kept there for the next time.

Its first code is ``agent/landing.py``; this is the other side of what is said until it is there.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.agent import landing
from launcher.engines import Landing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.engines import Berth

# More before the agent's first word is no login shell's greeting.
_NOISE = 1 << 20
_DESERTED = "its host answers, but the agent is gone: it was killed, or the host was started again"


class Arrival:
    """What is heard from a host until the agent itself speaks.

    Attributes:
        heard: the last of it, empty until anything came.
        deserted: why, where the host was reached, the agent that was to be met again is not there; else empty.
    """

    def __init__(self) -> None:
        self.heard = b""
        self.deserted = ""

    def take(self, data: bytes) -> Landing:
        """Wait for its mark, past whatever a login shell prints; say what to send, and what is the agent's own."""
        self.heard += data
        _, mark, after = self.heard.partition(landing.MARK)
        match after[:1]:
            case b"-":
                return Landing(_sized_zip(), after[1:])
            case b"+":
                return Landing(rest=after[1:])
            case b"=" if len(after) > landing.COUNT:
                count, rest = after[1 : 1 + landing.COUNT], after[1 + landing.COUNT :]
                return Landing(rest=rest, had=int.from_bytes(count, "big"))
            case b"!":
                self.deserted = _DESERTED
        if not mark:
            # As much as may be the beginning of the mark.
            self.heard = self.heard[-_NOISE:]
        return Landing()


def newcomer(**options: object) -> dict[str, object]:
    """The order to become an agent; ``options`` are the agent's own."""
    return {"digest": _digest(), "options": options}


def visitor(berth: Berth, have: int) -> dict[str, object]:
    """The order to hand the connection to the agent that is there, which has said ``have`` bytes that arrived."""
    return {"join": berth.mooring, "have": have}


def first_lines(order: Mapping[str, object]) -> bytes:
    """What a Python that reads its program from stdin is given first. It is less than a new pipe holds."""
    source = Path(landing.__file__).read_text(encoding="utf-8")
    return f"exec({source!r})\n{json.dumps(order)}\n".encode()


@cache
def _files() -> tuple[tuple[str, bytes], ...]:
    """All that a host needs: where it goes, and what it holds."""
    root = Path(__file__).resolve().parents[2]
    parts = [
        root / "launcher" / "__init__.py",
        *(root / "launcher" / "agent").rglob("*"),
        *(root / "worker").rglob("*"),
    ]
    paths = sorted(path for path in parts if path.is_file() and path.suffix != ".pyc")
    return tuple((str(path.relative_to(root)), path.read_bytes()) for path in paths)


@cache
def _digest() -> str:
    return landing.digest_of(_files())


@cache
def _sized_zip() -> bytes:
    """The files for a host that lacks them."""
    import io
    import zipfile

    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _files():
            archive.writestr(name, content)
    return len(made.getvalue()).to_bytes(landing.COUNT, "big") + made.getvalue()
