"""Every way a command of tflaunch can fail, who is to blame for it, and the exit status that says so.

    TflaunchError            1  launcher  a bug of ours
    ├── RequestError         2  caller    the request is wrong: usage, a range of ports that is taken, a place to write
    │   └── ConfigError      2  caller    a file or flags: all their faults at once, each at its JSON path or flag
    ├── UnavailableError    69  host      a host, an engine or a program that is needed is not to be had
    ├── Interrupted        130  caller    the user, or the system, asked the launcher or a host to stop (128 + signal)
    ├── DeadlineError      124  caller    the time for the run was over between two attempts
    └── TaskFailed           1  worker    what a test ran in a cluster failed there (launcher/testing)

Elsewhere a worker's own failure is no exception of ours: it is a Verdict, and its status is the run's.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Blame = Literal["launcher", "caller", "host", "worker", "nobody"]


class Fault(NamedTuple):
    """One thing that is wrong with a request.

    ``path`` is a JSON path such as ``$.hosts[1].workers``, or a flag; empty for what a command line names without a
    flag. ``hint`` says what to do and may be empty.
    """

    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return self.place + self.message + (f" ({self.hint})" if self.hint else "")

    @property
    def place(self) -> str:
        """Where it is, as it stands before the message."""
        return f"{self.path}: " if self.path else ""


class TflaunchError(Exception):
    """What happened and where, what to do about it, and the exit status that goes with it.

    Attributes:
        hint: what the reader can do next; empty when the message says it all.
        exit_status: the status the command ends with.
        blame: who has to act.
    """

    exit_status = 1
    blame: Blame = "launcher"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n  {self.hint}" if self.hint else message


class RequestError(TflaunchError):
    """The request cannot be carried out as it was put; nothing was started."""

    exit_status = 2
    blame = "caller"


class ConfigError(RequestError):
    """A file, or flags, with at least one fault. ``faults`` holds all of them."""

    def __init__(self, source: str, faults: tuple[Fault, ...]) -> None:
        self.faults = faults
        match faults:
            case [Fault(path) as one] if not path.startswith("$"):
                super().__init__(one.place + one.message, one.hint)
            case _:
                noun = "fault" if len(faults) == 1 else "faults"
                super().__init__("\n".join([f"{source}: {len(faults)} {noun}", *(f"  {fault}" for fault in faults)]))


class UnavailableError(TflaunchError):
    """Something outside the request is missing: a host, an engine, a free port, a program."""

    exit_status = 69
    blame = "host"


class Interrupted(TflaunchError):
    """A signal asked the launcher, or the agent of a ``host``, to stop while there was nothing to stop gently."""

    blame = "caller"

    def __init__(self, signum: int, host: str = "") -> None:
        import signal

        name = signal.Signals(signum).name
        super().__init__(f"{host} was told to end ({name} to its agent)" if host else f"interrupted by {name}")
        self.exit_status = 128 + signum


class DeadlineError(TflaunchError):
    """The time for the whole run is over."""

    exit_status = 124
    blame = "caller"
