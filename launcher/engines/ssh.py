"""Other hosts, by the system's OpenSSH client: keys, agents, jump hosts and certificates are as the user has set them up.

One connection carries everything. Nothing of ours has to be on the host: the agent comes over the connection, and is kept
there for the next time (``agent/landing.py``). No question is ever asked: ``BatchMode`` makes ssh fail instead.
Sources: ssh(1), ssh_config(5).
"""

from __future__ import annotations

import os
import shlex
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher.engines.child import Child
from launcher.engines.travel import Arrival, first_lines, newcomer, visitor
from launcher.errors import UnavailableError
from launcher.run_dir import last_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from launcher.config import HostSpec
    from launcher.engines import Berth, Landing

# What ssh itself ends with when it does not reach the host, or loses it.
_SSH_FAILED = 255
_CONNECT = 10
# ``exec``, so that no shell is left between sshd and the agent; single quotes alone, which every shell reads alike.
_COMMAND = "exec {python} -I -S -c 'exec(open(0,\"rb\",0,closefd=False).readline())'"


_CONNECTION_LOST = ("Connection", "Timeout", "disconnect", "Broken pipe")
_TURNED_AWAY = ("kex_exchange_identification", "Connection closed by", "Connection reset by")


class _Remedy(NamedTuple):
    said: str
    hint: str


_REMEDIES = (
    # Behind which "Host key verification failed" comes as well.
    _Remedy("IDENTIFICATION HAS CHANGED", "its key is not the one it had: find out why before you trust it"),
    _Remedy("Host key verification failed", "connect once by hand to see and accept its key: ssh {host}"),
    _Remedy("Permission denied", "let yourself in without a password: ssh-copy-id {host}"),
    _Remedy("Could not resolve hostname", 'correct its name, or say how to reach it with "ssh" in cluster.json'),
    _Remedy("Connection refused", "is sshd running there, and on that port?"),
    _Remedy("timed out", "is it up, and does a firewall let ssh through?"),
    _Remedy("No route to host", "is it up, and in a network that is reachable from here?"),
    _Remedy("not found", 'is Python 3.11 or later there? Name one with --python, or "python" in cluster.json'),
    _Remedy("No such file", 'is Python 3.11 or later there? Name one with --python, or "python" in cluster.json'),
    _Remedy("Python 3.11 or later", 'name another with --python, or "python" in cluster.json'),
    *(
        _Remedy(said, "is somebody else logging in all the time? See MaxStartups in its sshd_config")
        for said in _TURNED_AWAY
    ),
)


class SshChannel(Child):
    """An agent at the other end of an ssh connection."""

    landed = False

    def __init__(self, pid: int, stdin: int, stdout: int, log: Path) -> None:
        super().__init__(pid, stdin, stdout, log)
        self.host = ""
        self._arrival = Arrival()

    def land(self, data: bytes) -> Landing:
        """Wait for its mark, past whatever a login shell prints; send what it lacks."""
        return self._arrival.take(data)

    @property
    def deserted(self) -> str:
        """The host was reached, and its agent is not there."""
        return self._arrival.deserted

    def explain(self, code: int) -> str:
        """What ssh, or the far side's shell, said last."""
        said = last_lines(self.log, 1)
        if code == _SSH_FAILED or (said and not self._arrival.heard):
            return said[0] if said else "ssh could not reach it, or lost it, and said nothing"
        return super().explain(code)

    @property
    def stranded(self) -> bool:
        """Where the connection ended, the agent has seen that; where the agent ended, nobody is there any more."""
        if not self._arrival.heard or self._code in {0, -signal.SIGKILL}:
            return False
        # Of a command that a signal ended there, ssh says nothing, and ends as if it had failed itself (OpenSSH 9.2).
        said = "".join(last_lines(self.log, 1))
        return self._code != _SSH_FAILED or not any(words in said for words in _CONNECTION_LOST)

    @property
    def turned_away(self) -> bool:
        """Sshd has as many that are logging in as it wants (sshd_config(5), MaxStartups)."""
        said = "".join(last_lines(self.log, 1))
        return not self._arrival.heard and any(words in said for words in _TURNED_AWAY)

    @property
    def hint(self) -> str:
        """What to do about the most common failures."""
        said = "\n".join(last_lines(self.log, 20))
        return next((remedy.hint.format(host=self.host) for remedy in _REMEDIES if remedy.said in said), "")


class SshEngine:
    """Runs on hosts that have sshd and Python."""

    # Heartbeats go every 2 s; a cut cable is noticed by nothing else.
    silence = 10.0
    # Each is a process here. Where they come by one sshd, as with a jump host, that turns away what is too much for it
    # (sshd_config(5), MaxStartups).
    at_once = 32

    def open(self, berths: Sequence[Berth], *, private: bool, lease: float) -> list[SshChannel]:
        """Start ssh, and have it start Python there, with the agent on its way."""
        if private:
            raise UnavailableError("a private network is for this machine alone", "leave --private out")
        started: list[SshChannel] = []
        try:
            for berth in berths:
                order = newcomer(private=private, silence=self.silence, lease=lease, mooring=berth.mooring)
                started.append(_reach(berth, order))
        except UnavailableError:
            for channel in started:
                channel.kill()
                channel.wait()
                channel.close()
            raise
        return started

    def meet_again(self, berth: Berth, *, have: int) -> SshChannel:
        """Start ssh, and have it hand its connection to the agent."""
        return _reach(berth, visitor(berth, have))

    def peek(self, host: HostSpec) -> Mapping[str, Any] | None:
        """Nothing is known before somebody has been there."""
        del host
        return None


def command(host: HostSpec) -> list[str]:
    """The argument vector that reaches a host. ssh takes the first of several values of an option: the user's are first."""
    given = [f"{name}={value}" for name, value in host.ssh_options.items()]
    ours = ["BatchMode=yes", f"ConnectTimeout={_CONNECT}", "ControlMaster=no", "ForwardX11=no", "LogLevel=ERROR"]
    way = [*(["-p", str(host.port)] if host.port else []), *(["-J", host.jump] if host.jump else [])]
    who = ["-l", host.user] if host.user else []
    options = [word for option in (*given, *ours) for word in ("-o", option)]
    remote = _COMMAND.format(python=shlex.quote(host.python or "python3"))
    return ["ssh", "-T", *options, *way, *who, "--", host.ssh or host.address, remote]


def _reach(berth: Berth, order: Mapping[str, object]) -> SshChannel:
    channel = SshChannel.start(command(berth.host), berth.log)
    channel.host = berth.host.ssh or berth.host.address
    # It waits in the pipe for whoever reads it. Why ssh has ended already, it tells itself.
    with suppress(BrokenPipeError):
        os.write(channel.stdin, first_lines(order))
    return channel
