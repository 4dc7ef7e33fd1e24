from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from launcher.agent.process import MARKER, Process, _oom_kills_by
from launcher.agent.process import start as start_cold
from launcher.agent.spawn import CONTROL_FD, Command, NotStartedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

pytestmark = pytest.mark.timeout(60)


class Ward:
    """Does for one process what the agent does: reads its pipes to their ends, reaps it, keeps what was read."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.output = b""
        self.records: list[dict[str, Any]] = []

    def read(self, until: bytes | None = None) -> None:
        """Read until the output holds ``until``; without it, until nobody can write any more."""
        process = self.process
        with selectors.DefaultSelector() as selector:
            for descriptor in process.open:
                selector.register(descriptor, selectors.EVENT_READ)
            while process.open and (until is None or until not in self.output):
                for key, _ in selector.select():
                    if not (data := os.read(key.fd, 1 << 16)):
                        selector.unregister(key.fd)
                        self._close(key.fd)
                    elif key.fd == process.output:
                        self.output += data
                    else:
                        self.records += process.reports(data)

    def end(self) -> dict[str, Any]:
        """Wait until it is gone. Returns its obituary."""
        self.read()
        self.reap()
        return self.process.obituary()

    def reap(self) -> None:
        if self.process.ended is None:
            _, status, usage = os.wait4(self.process.pid, 0)
            self.process.has_ended(status, usage.ru_maxrss)

    def dismiss(self) -> None:
        if self.process.ended is None:
            self.process.kill()
            self.reap()
        for descriptor in list(self.process.open):
            self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        os.close(descriptor)
        self.process.open.discard(descriptor)


@pytest.fixture
def start() -> Iterator[Callable[..., Ward]]:
    wards: list[Ward] = []

    def begin(*argv: str, cwd: str | None = None, cores: Sequence[int] = (), **env: str) -> Ward:
        wards.append(Ward(Process(len(wards), Command(argv, cwd, {**os.environ, **env}, cores), start_cold)))
        return wards[-1]

    yield begin
    for ward in wards:
        ward.dismiss()


@pytest.fixture(params=["spawned", "forked"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By posix_spawn, and as with a Python whose posix_spawn knows no sessions."""

    def refuse(*_: object, **__: object) -> int:
        raise NotImplementedError

    if request.param == "forked":
        monkeypatch.setattr(os, "posix_spawn", refuse)


@pytest.fixture
def python(start: Callable[..., Ward]) -> Callable[..., Ward]:
    def begin(code: str, **more: Any) -> Ward:
        return start(sys.executable, "-S", "-c", code, **more)

    return begin


def _is_inheritable(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.usefixtures("way")
class TestBirth:
    def test_both_streams_come_out_of_one_pipe_in_order(self, start: Callable[..., Ward]) -> None:
        ward = start("sh", "-c", "echo a; echo b >&2; printf c")
        assert ward.end()["status"] == 0
        assert ward.output == b"a\nb\nc"

    def test_nothing_comes_in(self, start: Callable[..., Ward]) -> None:
        ward = start("cat")
        assert (ward.end()["status"], ward.output) == (0, b"")

    def test_the_environment_is_the_hosts_and_its_own_on_top(
        self, start: Callable[..., Ward], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FROM_HOST", "1")
        monkeypatch.setenv("BOTH", "host")
        ward = start("env", BOTH="own", OWN="2")
        ward.end()
        assert {b"FROM_HOST=1", b"BOTH=own", b"OWN=2", b"TFLAUNCH_CONTROL_FD=3"} <= set(ward.output.split(b"\n"))
        assert f"{MARKER}={ward.process.marker}".encode() in ward.output

    def test_the_program_is_looked_for_where_its_own_path_says(
        self, start: Callable[..., Ward], tmp_path: Path
    ) -> None:
        shutil.copy(shutil.which("echo") or "", tmp_path / "mine")
        ward = start("mine", "x", PATH=str(tmp_path))
        assert (ward.end()["status"], ward.output) == (0, b"x\n")

    def test_the_working_directory(self, start: Callable[..., Ward], tmp_path: Path) -> None:
        ward = start("pwd", "-P", cwd=str(tmp_path))
        ward.end()
        assert ward.output.decode() == f"{tmp_path.resolve()}\n"

    def test_arguments_are_bytes(self, start: Callable[..., Ward]) -> None:
        ward = start("printf", "%s", "caf\udce9 ü")
        ward.end()
        assert ward.output == b"caf\xe9 \xc3\xbc"

    def test_a_session_of_its_own(self, python: Callable[..., Ward]) -> None:
        ward = python("import os; print(os.getsid(0) == os.getpgid(0) == os.getpid())")
        ward.end()
        assert ward.output == b"True\n"

    def test_no_descriptor_of_ours(self, python: Callable[..., Ward]) -> None:
        handed_down = {number for number in range(4, 1024) if _is_inheritable(number)}
        ward = python("import os; print(*os.listdir('/proc/self/fd'))")
        ward.end()
        *numbers, _own_listing = sorted(set(map(int, ward.output.split())) - handed_down)
        assert numbers == [0, 1, 2, 3]

    def test_signals_are_as_a_program_expects_them(self, start: Callable[..., Ward]) -> None:
        handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            ward = start("grep", "-E", "SigBlk|SigIgn", "/proc/self/status")
            ward.end()
        finally:
            signal.signal(signal.SIGTERM, handler)
        blocked, ignored = (int(line.split()[1], 16) for line in ward.output.splitlines())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD):
            assert not (blocked | ignored) & 1 << (number - 1)

    @pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="there is no affinity here")
    def test_its_cores(self, python: Callable[..., Ward]) -> None:
        core = max(os.sched_getaffinity(0))
        ward = python("import os; print(os.sched_getaffinity(0))", cores=[core])
        ward.end()
        assert ward.output == f"{{{core}}}\n".encode()


@pytest.mark.usefixtures("way")
class TestStillbirth:
    @pytest.mark.parametrize(
        ("argv", "cwd", "step", "error"),
        [
            (["/absent/program"], None, "run /absent/program", "No such file or directory"),
            (["no-such-program-here"], None, "run no-such-program-here", "No such file or directory"),
            (["/etc/passwd"], None, "run /etc/passwd", "Permission denied"),
            (["true"], "/absent", "change to /absent", "No such file or directory"),
        ],
    )
    def test_it_says_why(
        self, start: Callable[..., Ward], argv: list[str], cwd: str | None, step: str, error: str
    ) -> None:
        before = Path.cwd(), _descriptors()
        with pytest.raises(NotStartedError) as raised:
            start(*argv, cwd=cwd)
        assert (raised.value.step, raised.value.strerror) == (step, error)
        assert os.strerror(raised.value.errno or 0) == error
        assert (Path.cwd(), _descriptors()) == before

    @pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="there is no affinity here")
    def test_cores_that_are_not_there(self, start: Callable[..., Ward]) -> None:
        own = os.sched_getaffinity(0)
        with pytest.raises(NotStartedError) as raised:
            start("true", cores=[1023])
        assert raised.value.step == "use cores [1023]"
        assert os.sched_getaffinity(0) == own


class TestReports:
    def test_one_for_each_line_that_is_an_object(self, start: Callable[..., Ward]) -> None:
        ward = start("printf", "")
        ward.end()
        lines = b'{"kind":"state"}\nnot json\n[1]\n3\n\xff\n\n{"kind":"error","message":"\\u00e9"}\n{"kind":"cut'
        assert list(ward.process.reports(lines)) == [{"kind": "state"}, {"kind": "error", "message": "é"}]
        assert list(ward.process.reports(b' here"}\n')) == [{"kind": "cut here"}]

    def test_they_come_by_the_control_descriptor(self, start: Callable[..., Ward]) -> None:
        ward = start("sh", "-c", f"echo '{json.dumps({'kind': 'state'})}' >&{CONTROL_FD}")
        ward.end()
        assert ward.records == [{"kind": "state"}]


FOREVER = "import time; print('up', flush=True); time.sleep(600)"


class TestStopping:
    def test_the_ladder_begins_with_sigterm_to_the_main_process_alone(self, start: Callable[..., Ward]) -> None:
        child = "(trap 'echo child' TERM; echo up; sleep 600 & wait)"
        ward = start("sh", "-c", f"trap 'echo main; exit 7' TERM; {child} & wait")
        ward.read(until=b"up\n")
        ward.process.terminate(30.0)
        os.waitid(os.P_PID, ward.process.pid, os.WEXITED | os.WNOWAIT)
        ward.process.kill_group()
        obituary = ward.end()
        assert (obituary["status"], obituary["sent"]) == (7, ["SIGTERM", "SIGCONT"])
        assert ward.output == b"up\nmain\n"

    def test_it_has_its_grace(self, python: Callable[..., Ward]) -> None:
        ward = python(FOREVER)
        assert ward.process.kill_at is None
        before = time.monotonic()
        ward.process.terminate(30.0)
        assert ward.process.kill_at is not None
        assert before + 30 <= ward.process.kill_at <= time.monotonic() + 30

    def test_one_that_is_deaf_has_none(self, python: Callable[..., Ward]) -> None:
        ward = python(FOREVER)
        for deaf, grace in (("false", 30.0), ("true", 0.0)):
            assert list(ward.process.reports(f'{{"kind": "state", "deaf": {deaf}}}\n'.encode()))
            ward.process.kill_at = None
            ward.process.terminate(grace=30.0)
            assert ward.process.kill_at is not None
            assert ward.process.kill_at <= time.monotonic() + grace

    def test_it_is_told_once(self, python: Callable[..., Ward]) -> None:
        ward = python(FOREVER)
        ward.read(until=b"up")
        ward.process.terminate(30.0)
        at = ward.process.kill_at
        ward.process.terminate(5.0)
        assert ward.process.kill_at == at
        obituary = ward.end()
        assert (obituary["status"], obituary["signal"], obituary["sent"]) == (None, 15, ["SIGTERM", "SIGCONT"])

    def test_a_stopped_process_notices(self, python: Callable[..., Ward]) -> None:
        ward = python(FOREVER)
        ward.read(until=b"up")
        os.kill(ward.process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, ward.process.pid, os.WSTOPPED | os.WNOWAIT)
        ward.process.terminate(30.0)
        assert ward.end()["signal"] == 15

    def test_kill_takes_the_whole_group(self, start: Callable[..., Ward]) -> None:
        ward = start("sh", "-c", "sleep 600 & echo up; wait")
        ward.read(until=b"up")
        ward.process.kill()
        # The child holds the pipe: its end is the child's.
        obituary = ward.end()
        assert (obituary["signal"], obituary["sent"]) == (9, ["SIGKILL"])

    def test_what_is_gone_is_told_nothing(self, start: Callable[..., Ward]) -> None:
        ward = start("true")
        ward.end()
        ward.process.terminate(1.0)
        ward.process.kill()
        assert ward.process.signals == []
        assert ward.process.kill_at is None


class TestObituary:
    @pytest.mark.parametrize(
        ("code", "status", "number"),
        [("raise SystemExit(3)", 3, None), ("import os; os.kill(os.getpid(), 9)", None, 9), ("pass", 0, None)],
    )
    def test_how_it_ended(self, python: Callable[..., Ward], code: str, status: int | None, number: int | None) -> None:
        obituary = python(code).end()
        assert (obituary["status"], obituary["signal"]) == (status, number)
        assert (obituary["sent"], obituary["oom"]) == ([], False)
        assert abs(obituary["time"] - time.time()) < 60

    def test_it_goes_over_the_wire(self, python: Callable[..., Ward]) -> None:
        obituary = python("pass").end()
        assert json.loads(json.dumps(obituary)) == obituary

    @pytest.mark.parametrize(
        ("killed_by_the_kernel", "sent_by_us", "expected"),
        [(1, False, True), (0, False, False), (1, True, False)],
    )
    def test_memory(
        self,
        python: Callable[..., Ward],
        monkeypatch: pytest.MonkeyPatch,
        killed_by_the_kernel: int,
        sent_by_us: bool,
        expected: bool,
    ) -> None:
        _oom_kills_by.cache_clear()
        counts = iter([5, 5 + killed_by_the_kernel])
        monkeypatch.setattr("launcher.agent.process._oom_kills", lambda: next(counts))
        ward = python(FOREVER)
        ward.read(until=b"up")
        if sent_by_us:
            ward.process.kill()
        else:
            os.kill(ward.process.pid, signal.SIGKILL)
        assert ward.end()["oom"] is expected
