"""Programs run in a worker of the fork server, side by side with the same programs started by themselves."""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zipfile import ZipFile

import pytest

from launcher.agent import kernel
from launcher.agent.process import Process, start
from launcher.agent.spawn import Command, NotStartedError
from launcher.agent.warm import ForkServer
from launcher.imports import FAMILY, READ_ONCE
from launcher.plan import CODE
from worker import imported, warm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(180)

_PR_SET_CHILD_SUBREAPER = 36
CHATTER = {"TF_CPP_MIN_LOG_LEVEL": "3"}


class Ran(NamedTuple):
    """What a program wrote, how it ended, and what boot reported of it."""

    output: str
    status: int
    records: list[dict[str, Any]]


def run(argv: list[str], begin: Callable[..., int], cwd: Path, env: dict[str, str]) -> Ran:
    command = Command(
        [sys.executable, f"{CODE}/worker/start.py", *argv], str(cwd), {**os.environ, **CHATTER, **env}, ()
    )
    process = Process(0, command, begin)
    received = dict.fromkeys(process.open, b"")
    while process.open:
        for descriptor in select.select(list(process.open), [], [], 60)[0]:
            data = os.read(descriptor, 1 << 16)
            received[descriptor] += data
            if not data:
                process.open.discard(descriptor)
    _, status = os.waitpid(process.pid, 0)
    for descriptor in received:
        os.close(descriptor)
    output, control = received[process.output], received[process.control]
    records = [json.loads(line) for line in control.splitlines()]
    # TensorFlow 2.21 logs at its import whatever the level is, with times and a process id.
    text = re.sub(r"^([IWE])0000 00:00:[0-9.]+ +[0-9]+ ", r"\1 ", output.decode(), flags=re.MULTILINE)
    return Ran(text.replace(str(process.pid), "PID"), status, records)


@pytest.fixture(scope="module")
def orphans() -> Iterator[None]:
    """This process takes in orphans, as an agent does."""
    kernel.adopt_orphans()
    yield
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture(scope="module")
def server(orphans: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with started(tmp_path_factory.mktemp("server")) as one:
        yield one


@pytest.fixture(scope="module", params=["tensorflow", ""], ids=["tensorflow", "bare"])
def any_server(
    orphans: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ForkServer]:
    """One that has imported TensorFlow, and one that has not."""
    with started(tmp_path_factory.mktemp("server"), request.param) as one:
        yield one


class started:  # noqa: N801 - reads as the function that it stands for
    """A fork server that is ready, or unfit."""

    def __init__(self, cwd: Path, module: str = "tensorflow", **env: str) -> None:
        variables = {**os.environ, **CHATTER, "OPENBLAS_NUM_THREADS": "1", **env}
        argv = [sys.executable, f"{CODE}/worker/start.py", "--fork-server", *filter(None, [module])]
        self.server = ForkServer(Command(argv, str(cwd), variables, ()))

    def __enter__(self) -> ForkServer:
        while not (self.server.ready or self.server.why):
            self.server.hear()
        return self.server

    def __exit__(self, *_: object) -> None:
        self.server.give_up("the test is over")
        with suppress(ChildProcessError):
            os.waitpid(self.server.pid, 0)
        self.server.close()


SHOW = "import json, os, sys\ndef show(*values): print(*values, flush=True)\n"

PROGRAMS = {
    "arguments": "show(sys.argv, sys.orig_argv[1:], sys.path[0], __name__, __file__, sys.flags, sys.executable)",
    "main": "show(sorted(k for k in globals() if k != 'show'), type(__loader__).__name__, __spec__, __doc__)",
    "modules": "show(sorted({n.partition('.')[0] for n in sys.modules if n[:4] != '_tfl'} - sys.stdlib_module_names))",
    "finders": "show([getattr(one, '__name__', type(one).__name__) for one in sys.meta_path][-4:], len(sys.path_hooks))",
    "warnings": "import warnings; show(warnings.filters); warnings.warn('careful', DeprecationWarning)",
    "signals": "import signal\nshow([(s, signal.getsignal(s)) for s in signal.valid_signals()], signal.pthread_sigmask(0, []))",
    "locale": "import locale; show(locale.getlocale(), locale.setlocale(locale.LC_ALL), sys.getfilesystemencoding())",
    "streams": "show([(f.encoding, f.errors, f.line_buffering, f.write_through, f.isatty()) for f in "
    "(sys.stdin, sys.stdout, sys.stderr)], sys.stdin.read())",
    "descriptors": "show(sorted((n, os.get_inheritable(int(n))) for n in os.listdir('/proc/self/fd') if int(n) < 4 or "
    "not os.readlink('/proc/self/fd/' + n).startswith('/proc')) if True else 0)",
    "process": "show(os.getsid(0) == os.getpgrp() == os.getpid(), os.getcwd(), os.umask(0o22), os.nice(0), "
    "os.sched_getaffinity(0), open('/proc/self/comm').read())",
    "limits": "import resource; show([resource.getrlimit(n) for n in range(16)])",
    "seen from outside": "show(open('/proc/self/cmdline').read(), sorted(open('/proc/self/environ').read().split(chr(0))) == "
    "sorted([f'{k}={v}' for k, v in os.environ.items()] + ['TFLAUNCH_CONTROL_FD=3', '']))",
    "environment": "show(type(os.environ), sorted(n for n in os.environ if n != 'TFLAUNCH_PROCESS'), os.getenv('MINE'))",
    "interpreter": "import gc; show(gc.isenabled(), gc.get_threshold(), sys.getrecursionlimit(), sys.getswitchinterval(), "
    "sys.gettrace(), sys.getprofile(), sys.excepthook is sys.__excepthook__, sys.dont_write_bytecode)",
    "threads": "import threading; show([t.name for t in threading.enumerate()], threading.active_count(), len(os.listdir('/proc/self/task')))",
    "logging": "import logging; show(logging.root.handlers, logging.root.level); logging.warning('seen')",
    "at exit": "import atexit; atexit.register(print, 'bye'); show('hello')",
    "exit 3": "sys.exit(3)",
    "exit text": "sys.exit('that was it')",
    "exit at once": "os._exit(7)",
    "exception": "def f(): 1 / 0\nf()",
    "chain": "try: 1 / 0\nexcept ZeroDivisionError as e: raise RuntimeError('no') from e",
    "stack": "import traceback; traceback.print_stack()",
    "hook": "sys.excepthook = lambda *a: print('mine', a[0], a[2].tb_next)\n1 / 0",
    "syntax": "def (:",
    "killed": "import signal; os.kill(os.getpid(), signal.SIGKILL)",
    "terminated": "import signal; os.kill(os.getpid(), signal.SIGTERM)",
    "aborted": "os.abort()",
    "interrupt": "import signal; os.kill(os.getpid(), signal.SIGINT)",
    "pipe": "r, w = os.pipe(); os.close(r); os.write(w, b'x')",
    "faulthandler": "import faulthandler; show(faulthandler.is_enabled())",
    "pickle": "import pickle\nclass C: pass\nshow(pickle.loads(pickle.dumps(C())).__class__)",
    "child": "import subprocess; show(subprocess.run([sys.executable, '-c', 'import os; print(sorted(os.environ)[:3])'], "
    "capture_output=True).stdout)",
    "fork": "p = os.fork()\nif p == 0: os._exit(5)\nshow(os.waitpid(p, 0)[1])",
    "tempfile": "import tempfile; show(tempfile.gettempdir(), tempfile.template)",
}
MULTIPROCESSING = """
import multiprocessing
def square(x): return x * x, __name__ == "__main__"
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    with context.Pool(2) as pool: show(pool.map(square, [1, 2, 3]))
    show(multiprocessing.current_process().name, multiprocessing.parent_process())
"""


def both(server: ForkServer, argv: list[str], folder: Path, **env: str) -> tuple[Ran, Ran]:
    warmly, coldly = (run(argv, begin, folder, env) for begin in (server.fork, start))
    return warmly, coldly


def told(ran: Ran) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name != "time"} for record in ran.records]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_sees_and_does_the_same(any_server: ForkServer, tmp_path: Path, name: str) -> None:
    (tmp_path / "script.py").write_text(PROGRAMS[name] if name in {"stack", "syntax"} else SHOW + PROGRAMS[name])
    if name == "stack":
        (tmp_path / "script.py").write_text("import os, sys\n" + PROGRAMS[name])
    warmly, coldly = both(any_server, ["script.py", "--flag", "x"], tmp_path, MINE="ä", PYTHONUNBUFFERED="1")
    assert warmly.output == coldly.output
    assert os.WTERMSIG(warmly.status) == os.WTERMSIG(coldly.status)
    assert os.waitstatus_to_exitcode(warmly.status) == os.waitstatus_to_exitcode(coldly.status)
    assert told(warmly) == told(coldly)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(any_server: ForkServer, tmp_path: Path, method: str) -> None:
    (tmp_path / "script.py").write_text(SHOW + MULTIPROCESSING.format(method=method))
    warmly, coldly = both(any_server, ["script.py"], tmp_path)
    assert (warmly.output, warmly.status) == (coldly.output, coldly.status)
    assert "(9, False)" in warmly.output or method == "fork"


@pytest.mark.parametrize(
    "argv", [["-m", "package.part", "x"], ["-m", "package"], ["package"], ["-m", "nosuch"], ["none.py"]]
)
def test_modules_and_folders(any_server: ForkServer, tmp_path: Path, argv: list[str]) -> None:
    package = tmp_path / "package"
    package.mkdir()
    for name in ("__init__", "__main__", "part"):
        text = "print(sys.argv, sys.path[0], __name__, __spec__ and __spec__.name, __package__, __file__)"
        (package / f"{name}.py").write_text(f"import sys\n{text}")
    warmly, coldly = both(any_server, argv, tmp_path)
    assert (warmly.output, warmly.status) == (coldly.output, coldly.status)


IMPORTS = {
    "tensorflow": "import tensorflow as tf; show(tf.__version__, tf.__spec__.name, tf.__spec__.origin)",
    "keras first": "import keras; show(keras.__version__, keras.__spec__.name, 'tensorflow' in sys.modules)",
    "a part": "from tensorflow.python.framework import ops; show(ops.__name__)",
    "keras of tensorflow": "from tensorflow.keras import layers; show(layers.Dense.__module__)",
    "found by name": "import importlib.util; show(importlib.util.find_spec('tensorflow').name)",
    "filters": "import warnings; warnings.simplefilter('error', UserWarning); import tensorflow; show(warnings.filters)",
    "numpy alone": "import numpy; show(numpy.ones(3).sum(), 'tensorflow' in sys.modules, numpy.__spec__.origin)",
    "six alone": "import six.moves.queue as q; show(q.Queue, 'keras' in sys.modules); import tensorflow; show(six.PY3)",
    "use": "import tensorflow as tf; show(tf.reduce_sum(tf.ones((50, 50)) @ tf.ones((50, 50))).numpy())",
    "model": "import keras, numpy\nm = keras.Sequential([keras.layers.Dense(1)]); m.compile('sgd', 'mse')\n"
    "m.fit(numpy.ones((8, 2)), numpy.ones((8, 1)), verbose=0); show(m.count_params())",
    "threads of numpy": "import numpy, threading; numpy.ones((500, 500)) @ numpy.ones((500, 500)); "
    "show(len(os.listdir('/proc/self/task')))",
    "reloaded": "import tensorflow, importlib, keras.utils; show(importlib.import_module('keras.utils') is keras.utils)",
}


@pytest.mark.parametrize("name", IMPORTS)
def test_an_import_gives_and_does_the_same(any_server: ForkServer, tmp_path: Path, name: str) -> None:
    (tmp_path / "script.py").write_text(SHOW + IMPORTS[name])
    warmly, coldly = both(any_server, ["script.py"], tmp_path, OMP_NUM_THREADS="2")
    assert (warmly.output, warmly.status) == (coldly.output, coldly.status)


def test_what_the_import_prints_is_printed_at_the_import(orphans: None, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SHOW + "show('before')\nimport tensorflow\nshow('after')")
    with started(tmp_path, TF_CPP_MIN_LOG_LEVEL="0") as talkative:
        warmly = run(["script.py"], talkative.fork, tmp_path, {"TF_CPP_MIN_LOG_LEVEL": "0"})
    before, after = warmly.output.index("before"), warmly.output.index("after")
    assert before == 0
    assert after - before > len("before\n")
    assert after == len(warmly.output) - len("after\n")


def test_no_two_workers_draw_the_same_numbers(any_server: ForkServer, tmp_path: Path) -> None:
    text = "import random, numpy.random, uuid, tempfile, multiprocessing as m, keras\n"
    text += "for one in (random.random(), numpy.random.rand(), uuid.uuid4(), m.current_process().authkey.hex(), "
    text += "tempfile.mktemp(), int(keras.random.randint((), 0, 2**30))): show(one)"
    (tmp_path / "script.py").write_text(SHOW + text)
    ones, others = (run(["script.py"], any_server.fork, tmp_path, {}).output.splitlines()[-6:] for _ in range(2))
    assert len(ones) == len(others) == 6
    assert not set(ones) & set(others)


@pytest.mark.parametrize("module", ["tensorflow", ""])
def test_nor_if_the_environment_has_loaded_what_makes_them(orphans: None, tmp_path: Path, module: str) -> None:
    (tmp_path / "sitecustomize.py").write_text("import random, numpy.random")
    (tmp_path / "script.py").write_text(SHOW + "import random, numpy; show(random.random(), numpy.random.rand())")
    with started(tmp_path, module, PYTHONPATH=str(tmp_path)) as server:
        ones, others = (run(["script.py"], server.fork, tmp_path, {}).output.split() for _ in range(2))
    assert len(ones) == len(others) == 2
    assert not set(ones) & set(others)


def test_a_file_beside_the_script_that_an_import_would_find(server: ForkServer, tmp_path: Path) -> None:
    (tmp_path / "absl.py").write_text("raise ImportError('a neighbour')")
    (tmp_path / "script.py").write_text(SHOW + "import tensorflow")
    warmly, coldly = both(server, ["script.py"], tmp_path)
    assert (warmly.output, warmly.status) == (coldly.output, coldly.status)
    assert "a neighbour" in warmly.output
    assert warmly.records[0]["kind"] == "cold"
    assert str(tmp_path / "absl.py") in warmly.records[0]["why"]


@pytest.mark.parametrize(
    "setting", [("KERAS_BACKEND", "tensorflow"), ("TF_CPP_MIN_LOG_LEVEL", "1"), ("TF_USE_LEGACY_KERAS", "0")]
)
def test_a_variable_that_is_set_to_what_it_was_taken_for(
    server: ForkServer, tmp_path: Path, setting: tuple[str, str]
) -> None:
    (tmp_path / "script.py").write_text(
        SHOW + f"os.environ[{setting[0]!r}] = {setting[1]!r}\nimport keras; show('fine')"
    )
    ran = run(["script.py"], server.fork, tmp_path, {})
    assert (ran.status, ran.output.splitlines()[-1]) == (0, "fine")


def test_a_variable_that_is_set_too_late(server: ForkServer, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SHOW + "os.environ['KERAS_BACKEND'] = 'jax'\nimport keras")
    ran = run(["script.py"], server.fork, tmp_path, {})
    assert (
        "ImportError: KERAS_BACKEND was set too late: this worker was started warm (--cold, or warm=False, avoids it)"
        in ran.output
    )


def test_coverage_measures_the_program(any_server: ForkServer, tmp_path: Path) -> None:
    pytest.importorskip("coverage")
    (tmp_path / "rc").write_text(f"[run]\ndata_file = {tmp_path}/data\nparallel = true\ninclude = {tmp_path}/*\n")
    (tmp_path / "script.py").write_text("print('covered')\n")
    ran = run(["script.py"], any_server.fork, tmp_path, {"COVERAGE_PROCESS_START": str(tmp_path / "rc")})
    assert ran.output == "covered\n"
    import coverage

    (file,) = tmp_path.glob("data.*")
    data = coverage.CoverageData(str(file))
    data.read()
    assert data.lines(str(tmp_path / "script.py")) == [1]


@pytest.mark.parametrize("module", ["tensorflow", ""])
def test_an_archive_that_has_changed_meanwhile(orphans: None, tmp_path: Path, module: str) -> None:
    (tmp_path / "script.py").write_text("import part; print(part.text)")
    path = tmp_path / "modules.zip"

    def pack(text: str) -> None:
        with ZipFile(path, "w") as archive:
            archive.writestr("before.py", f"text = {text!r}")
            archive.writestr("part.py", f"text = {text!r}")

    pack("one")
    # Now where everything is in the archive is known.
    (tmp_path / "sitecustomize.py").write_text("import before")
    with started(tmp_path, module, PYTHONPATH=f"{tmp_path}:{path}") as server:
        pack("another")
        ran = run(["script.py"], server.fork, tmp_path, {})
    assert ran.output == "another\n"


def test_a_directory_that_is_gone(any_server: ForkServer, tmp_path: Path) -> None:
    ran = run(["script.py"], any_server.fork, tmp_path / "nowhere", {})
    assert os.waitstatus_to_exitcode(ran.status) == 127
    (record,) = ran.records
    assert (record["kind"], record["step"]) == ("not-started", f"change to {tmp_path / 'nowhere'}")


HOOK = "import sys, os\nclass Hook:\n def find_spec(n, *a):\n  if n == 'tensorflow': {}\nsys.meta_path.insert(0, Hook)"


@pytest.mark.parametrize(
    ("site", "why"),
    [
        ("import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "threads"),
        ("log = open(__file__)", "starting Python opened a file"),
        (HOOK.format("raise ImportError('broken')"), "ImportError: broken"),
        (HOOK.format("os.kill(os.getpid(), 9)"), "the fork server ended"),
    ],
)
def test_unfit(orphans: None, tmp_path: Path, site: str, why: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(site)
    with started(tmp_path, PYTHONPATH=str(tmp_path)) as server:
        assert why in server.why


def test_a_server_that_does_not_answer(orphans: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.agent.warm._PATIENCE", 0.2)
    (tmp_path / "script.py").write_text("open('ran', 'w')")
    with started(tmp_path) as server:
        os.kill(server.pid, signal.SIGSTOP)
        with pytest.raises(OSError, match="the fork server did not answer"):
            run(["script.py"], server.fork, tmp_path, {})
    assert server.why == "the fork server did not answer"


def test_a_worker_that_nobody_tells_to_go(
    any_server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "script.py").write_text("open('ran', 'w')")
    monkeypatch.setattr("launcher.agent.warm._GO", b"")
    ran = run(["script.py"], any_server.fork, tmp_path, {})
    assert (os.waitstatus_to_exitcode(ran.status), ran.output) == (1, "")
    assert not (tmp_path / "ran").exists()


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotStartedError, match="No such file or directory"):
        ForkServer(Command(["nosuchpython"], str(tmp_path), os.environ, ()))


@pytest.mark.parametrize(
    ("threads", "context", "files", "why"),
    [
        (1, None, ["/dev/null", "socket:[1]"], ""),
        (3, None, [], "2 threads"),
        (1, object(), [], "its context"),
        (1, None, ["/dev/nvidia0"], "the GPUs"),
    ],
)
def test_what_must_not_be_forked(threads: int, context: object, files: list[str], why: str) -> None:
    assert why in warm.unfitness(threads, context, files)
    assert bool(warm.unfitness(threads, context, files)) == bool(why)


def test_what_both_sides_know_is_the_same() -> None:
    assert set(imported.DECISIVE) < READ_ONCE
    assert set(imported.FAMILY) == FAMILY
