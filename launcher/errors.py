"""Every way a command of tflaunch can fail, who is to blame for it, and the exit status that says so.

    TflaunchError
    ├── RequestError       2    the request is wrong: usage, configuration, a script that is not there
    │   └── ConfigError    2    cluster.json: all its faults at once, each with its JSON path
    ├── UnavailableError  69    a host, an engine, a port range or a program that is needed is not to be had
    └── Interrupted      130    the user, or the system, asked the launcher to stop (128 + signal)

A worker's own failure is no exception of ours: it is a Verdict, and its status is the run's.
"""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """One thing that is wrong with a cluster.json.

    ``path`` is a JSON path such as ``$.hosts[1].workers``; ``hint`` says what to do and may be empty.
    """

    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class TflaunchError(Exception):
    """What happened and where, what to do about it, and the exit status that goes with it.

    Attributes:
        hint: what the reader can do next; empty when the message says it all.
        exit_status: the status the command ends with.
    """

    exit_status = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n  {self.hint}" if self.hint else message


class RequestError(TflaunchError):
    """The request cannot be carried out as it was put; nothing was started."""

    exit_status = 2


class ConfigError(RequestError):
    """A cluster.json with at least one fault. ``faults`` holds all of them."""

    def __init__(self, source: str, faults: tuple[Fault, ...]) -> None:
        self.faults = faults
        noun = "fault" if len(faults) == 1 else "faults"
        super().__init__("\n".join([f"{source}: {len(faults)} {noun}", *(f"  {fault}" for fault in faults)]))


class UnavailableError(TflaunchError):
    """Something outside the request is missing: a host, an engine, a free port, a program."""

    exit_status = 69


class Interrupted(TflaunchError):
    """A signal asked the launcher to stop before there was anything to stop gently."""

    def __init__(self, signum: int) -> None:
        import signal

        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.exit_status = 128 + signum
