"""Two hosts that are this machine: an engine as other packages bring theirs, with hosts that come and go as files say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.engines.child import Child
from launcher.engines.local import LocalEngine
from launcher.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from launcher.engines import Berth

HOSTS = ("127.0.0.1", "127.0.0.2")


class TwoHosts(LocalEngine):
    """Looks for ``gone-<address>`` and ``silent-<address>`` where the launcher runs."""

    def open(self, berths: Sequence[Berth], *, private: bool, lease: float = 0.0) -> list[Child]:
        """An agent; of a silent host something that never says hello."""
        (berth,) = berths
        address = berth.host.address
        if Path(f"gone-{address}").exists():
            raise UnavailableError(f"{address}: no route to host")
        if Path(f"silent-{address}").exists():
            return [Child.start(["sleep", "600"], berth.log)]
        here = berth._replace(host=berth.host._replace(address="127.0.0.1"))
        return super().open([here], private=private, lease=lease)


def install(folder: Path) -> dict[str, str]:
    """Make the engine ``two`` one of an installed package. Returns the variables with which the launcher finds it."""
    package = folder / "two_hosts-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: two_hosts\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[tflaunch.engines]\ntwo = tests.acceptance.engine:TwoHosts\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parents[2])])}
