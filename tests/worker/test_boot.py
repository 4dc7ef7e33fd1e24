"""A program run through boot, side by side with the same program run by plain Python."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from worker import boot, failure

if TYPE_CHECKING:
    from collections.abc import Sequence

BOOT = Path(boot.__file__).with_name("start.py")


class Ended(NamedTuple):
    """What anybody can see of a process that has ended."""

    status: int
    out: str
    err: str


def run(
    *command: str | Path,
    cwd: Path,
    options: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Ended:
    environment = {**os.environ, "PYTHONHASHSEED": "0", **(env or {})}
    done = subprocess.run(
        [sys.executable, *options, *command],
        cwd=cwd,
        env=environment,
        pass_fds=pass_fds,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return Ended(done.returncode, text_of(done.stdout), text_of(done.stderr))


def text_of(output: bytes) -> str:
    """The output as text, without the addresses of objects: no two runs have the same."""
    return re.sub(" at 0x[0-9a-f]+", "", output.decode(errors="backslashreplace"))


def same(*command: str | Path, cwd: Path, options: tuple[str, ...] = (), env: dict[str, str] | None = None) -> Ended:
    """Runs the command plain and through boot; there must be nothing to tell them apart by."""
    plain = run(*command, cwd=cwd, options=options, env=env)
    assert run(BOOT, *command, cwd=cwd, options=options, env=env) == plain
    return plain


def told(
    *command: str | Path, cwd: Path, env: dict[str, str] | None = None, boot_file: Path = BOOT
) -> tuple[Ended, list[dict[str, object]]]:
    """Runs the command through boot with a control line; its end and the records it wrote."""
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, boot_file, *command],
            cwd=cwd,
            env={**os.environ, boot.CONTROL_FD: str(writer), **(env or {})},
            pass_fds=[writer],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(writer)
    # Both at once: either would stop the process when its pipe is full.
    with process, ThreadPoolExecutor(1) as beside:
        lines = beside.submit(drain, reader)
        out, err = process.communicate(timeout=60)
        records = [json.loads(line) for line in lines.result()]
    return Ended(process.returncode, out, err), records


def drain(reader: int) -> list[bytes]:
    with os.fdopen(reader, "rb") as lines:
        return lines.readlines()


def last(command: tuple[str | Path, ...], cwd: Path) -> dict[str, object]:
    _, records = told(*command, cwd=cwd)
    assert [record["kind"] for record in records[:-1]] == ["state"]
    return records[-1]


def script(folder: Path, text: str, name: str = "train.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- fidelity: scripts that look at themselves -----------------------------------------------------------------------

LOOK = '''
"""What this script is for."""
import sys
names = sorted(name for name in globals() if name != "sys")
print(names)
print(__name__, __file__, __spec__, __package__, __cached__, __doc__, type(__loader__), __builtins__, __annotations__)
print(__loader__.name, __loader__.path)
print(sys.argv, sys.orig_argv, sys.path)
print(sys.modules["__main__"].__dict__ is globals(), sys.excepthook is sys.__excepthook__)
'''

PROGRAMS: dict[str, str | bytes] = {
    "look": LOOK,
    "modules": "import sys; print(sorted(set(sys.modules) - {'_tflaunch_boot'}))",
    "environment": "import os; print(sorted(os.environ))",
    "pickle": (
        "import pickle\n"
        "class Point: pass\n"
        "def f(): pass\n"
        "print(Point.__module__, pickle.loads(pickle.dumps(f)) is f, pickle.dumps(Point()))"
    ),
    "annotations": "def f(x: int) -> str: ...\nn: int = 1\nprint(f.__annotations__, __annotations__)",
    "encoding": b"# -*- coding: latin-1 -*-\nprint('caf\xe9')\n",
    "byte order mark": b"\xef\xbb\xbfprint('\xc3\xa9')\n",
    "syntax warning": "print(1 is 1)",
    "warning": "import warnings\ndef f(): warnings.warn('look', stacklevel=2)\nf()\nwarnings.warn('again', UserWarning)",
    "deprecation": "import warnings; warnings.warn('old', DeprecationWarning)",
    "order of the end": (
        "import atexit, threading\n"
        "class Noisy:\n    def __del__(self): print('deleted')\n"
        "kept = Noisy()\n"
        "atexit.register(print, 'atexit')\n"
        "threading.Thread(target=lambda: (threading.main_thread().join(), print('thread'))).start()\n"
        "print('main')"
    ),
    # How it ends.
    "exit 3": "import sys; sys.exit(3)",
    "exit text": "import sys; sys.exit('no data')",
    "exit none": "raise SystemExit",
    "exit object": "raise SystemExit(['a', 1])",
    "exit 256": "import sys; sys.exit(256)",
    "exit -1": "import sys; sys.exit(-1)",
    "hard exit": "import os; print('lost'); os._exit(9)",
    "exit in atexit": "import atexit, sys; atexit.register(sys.exit, 4)",
    "error in atexit": "import atexit; atexit.register(lambda: 1 / 0)",
    "error in thread": "import threading; t = threading.Thread(target=lambda: 1 / 0, name='t'); t.start(); t.join()",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGTERM); signal.pause()",
    "interrupt": "import os, signal; os.kill(os.getpid(), signal.SIGINT); signal.pause()",
    "interrupt raised": "import atexit; atexit.register(print, 'atexit'); raise KeyboardInterrupt('now')",
    "segmentation fault": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV); signal.pause()",
    # What is said about an error.
    "error": "def f():\n    return 1 / 0\nf()",
    "chained": "try:\n    {}['a']\nexcept KeyError as error:\n    raise ValueError('bad') from error",
    "in the course of": "try:\n    {}['a']\nexcept KeyError:\n    raise ValueError('bad')",
    "group": "raise ExceptionGroup('two', [ValueError('one'), TypeError('more')])",
    "note": "error = ValueError('bad')\nerror.add_note('look here')\nraise error",
    "in a library": "import json\njson.loads('{')",
    "no text": "class Bad(Exception):\n    def __str__(self): raise ValueError('no text')\nraise Bad",
    "recursion": "def f(): f()\ntry:\n    f()\nexcept RecursionError:\n    raise ValueError from None",
    "generator exit": "raise GeneratorExit",
    "class with a module": "class Bad(Exception): pass\nraise Bad('here')",
    "own hook": "import sys, traceback\nsys.excepthook = lambda *three: traceback.print_exception(*three)\n1 / 0",
    "hook that looks": (
        "import sys\n"
        "def hook(kind, error, trace):\n"
        "    print(kind, error, trace.tb_frame.f_code.co_filename, error.__traceback__ is trace)\n"
        "    print(sys.last_traceback is trace, sys.excepthook is hook)\n"
        "sys.excepthook = hook\n"
        "1 / 0"
    ),
    "hook that exits": "import sys\nsys.excepthook = lambda *three: sys.exit(5)\n1 / 0",
    "caught": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    import traceback; traceback.print_exc()",
    # What cannot be compiled.
    "syntax error": "print(1)\nif True print(2)",
    "indentation error": "if True:\nprint(2)",
    "unknown bytes": b"print('\xff')\n",
    "null byte": b"print(1)\n\0\n",
    "unknown encoding": "# coding: klingon\n",
    "too deep": "(" * 1000,
    "future": "from __future__ import no_such_thing",
    "return outside": "return",
    # Children.
    "fork": (
        "import os, sys\n"
        "if os.fork() == 0:\n    raise ValueError('child')\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]))"
    ),
    "subprocess": "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import sys; print(sys.path)'])",
    **{
        f"multiprocessing {method}": (
            "import multiprocessing\n"
            "class Point:\n"
            "    def __init__(self, x): self.x = x\n"
            "def double(point): return Point(2 * point.x)\n"
            "if __name__ == '__main__':\n"
            f"    with multiprocessing.get_context({method!r}).Pool(1) as pool:\n"
            "        print(pool.map(double, [Point(21)])[0].x)\n"
        )
        for method in ("spawn", "forkserver", "fork")
    },
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_script_runs_as_in_plain_python(name: str, tmp_path: Path) -> None:
    text = PROGRAMS[name]
    (tmp_path / "train.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    same("train.py", "-x", "a b", cwd=tmp_path)


@pytest.mark.parametrize("name", ["look", "error", "exit text", "interrupt raised", "syntax error", "pickle"])
def test_a_module_runs_as_in_plain_python(name: str, tmp_path: Path) -> None:
    text = PROGRAMS[name]
    assert isinstance(text, str)
    script(tmp_path, text, "project/train.py")
    script(tmp_path, "import sys; print(sys.argv, sys.path[0])", "project/__init__.py")
    # Python's own run first: it writes the byte code whose name both runs then show.
    run("-m", "project.train", cwd=tmp_path)
    same("-m", "project.train", "-x", "a b", cwd=tmp_path)


@pytest.mark.parametrize("name", ["look", "error", "exit 3", "syntax error"])
@pytest.mark.parametrize("zipped", [False, True], ids=["directory", "zip"])
def test_a_directory_or_zip_file_runs_as_in_plain_python(name: str, zipped: bool, tmp_path: Path) -> None:
    text = PROGRAMS[name]
    assert isinstance(text, str)
    main = script(tmp_path, text, "project/__main__.py")
    if zipped:
        with zipfile.ZipFile(tmp_path / "project.zip", "w") as archive:
            archive.write(main, "__main__.py")
    target = "project.zip" if zipped else "project"
    run(target, cwd=tmp_path)
    same(target, "-x", cwd=tmp_path)


@pytest.mark.parametrize(
    "command", [["missing.py"], ["/no/such/folder/missing.py"], ["."], ["-m", "missing"], ["-m", "train.py"], ["-m"]]
)
def test_what_cannot_be_found_is_refused_in_the_words_of_plain_python(command: list[str], tmp_path: Path) -> None:
    script(tmp_path, "")
    ended = same(*command, cwd=tmp_path)
    assert ended.status in {1, 2}
    assert ended.err


@pytest.mark.parametrize("options", [(), ("-P",), ("-I",), ("-O",), ("-X", "utf8"), ("-u", "-W", "error")])
@pytest.mark.parametrize("command", [["sub/train.py"], ["-m", "sub.train"], ["sub/project"]])
def test_the_options_of_python_mean_what_they_mean(
    options: tuple[str, ...], command: list[str], tmp_path: Path
) -> None:
    script(tmp_path, LOOK + "print(sys.flags)", "sub/train.py")
    script(tmp_path, LOOK, "sub/project/__main__.py")
    run(*command, cwd=tmp_path, options=options)
    same(*command, cwd=tmp_path, options=options)


@pytest.mark.parametrize("command", [["train.py"], ["-m", "train"]])
def test_pythonsafepath_keeps_the_programs_folder_off_the_path(command: list[str], tmp_path: Path) -> None:
    script(tmp_path, LOOK)
    same(*command, cwd=tmp_path, env={"PYTHONSAFEPATH": "1"})


@pytest.mark.parametrize("path", ["./sub/../link.py", "../{here}/link.py", "{full}/linked/train.py", "linked/train.py"])
def test_the_path_is_resolved_as_python_does(path: str, tmp_path: Path) -> None:
    script(tmp_path, LOOK, "sub/real/train.py")
    (tmp_path / "link.py").symlink_to("sub/real/train.py")
    (tmp_path / "linked").symlink_to(tmp_path / "sub" / "real")
    same(path.format(here=tmp_path.name, full=tmp_path), cwd=tmp_path)


def test_boot_loads_no_module_before_the_program(tmp_path: Path) -> None:
    program = script(tmp_path, "import sys; print(*sys.modules)")
    plain = run(program, cwd=tmp_path).out.split()
    booted = run(BOOT, program, cwd=tmp_path).out.split()
    assert set(booted) - set(plain) == {"_tflaunch_boot"}


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A copy of boot in a package of its own, with a trainer that tells who it is."""
    package = tmp_path / "ours" / "worker"
    package.mkdir(parents=True)
    for file in (BOOT, Path(boot.__file__), Path(failure.__file__)):
        shutil.copy(file, package)
    script(package, "whose = 'ours'", "__init__.py")
    script(package, "whose = 'ours, deeper'", "context.py")
    script(package, "raise SystemExit('a neighbour of worker got in')", "../launcher.py")
    script(
        package,
        "import sys, worker\nfrom worker import context\n"
        "print(worker.whose, context.whose, sys.argv, __name__, __spec__.name)",
        "__main__.py",
    )
    return package / "start.py"


WHOSE = "import worker; print(worker.whose)"


@pytest.mark.parametrize("command", [["train.py"], ["-m", "train"]])
@pytest.mark.parametrize(
    ("neighbour", "whose"), [(None, "ours"), ("worker.py", "theirs"), ("worker/__init__.py", "theirs")]
)
def test_import_worker_finds_the_programs_neighbour_first(
    command: list[str], neighbour: str | None, whose: str, ours: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    script(home, WHOSE)
    if neighbour:
        script(home, "whose = 'theirs'", neighbour)
    # -S: an installed copy of this very project must not answer in its place.
    assert run(ours, *command, cwd=home, options=("-S",)) == (0, f"{whose}\n", "")


@pytest.mark.parametrize("options", [(), ("-S", "-P"), ("-S", "-I")], ids=str)
@pytest.mark.parametrize("neighbour", ["worker.py", "worker/__main__.py"])
def test_the_trainer_is_always_ours(options: tuple[str, ...], neighbour: str, ours: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    script(home, "print('theirs')", neighbour)
    main = ours.parent / "__main__.py"
    ended = run(ours, "--trainer", "digits", "--steps", "5", cwd=home, options=options)
    argv = [str(main), "digits", "--steps", "5"]
    assert ended == (0, f"ours ours, deeper {argv} __main__ worker.__main__\n", "")


def test_a_worker_of_the_user_runs_with_m(ours: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    script(home, "print('theirs')", "worker.py")
    assert run(ours, "-m", "worker", cwd=home).out == "theirs\n"


def test_nothing_of_ours_but_worker_can_be_imported(ours: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    script(
        home,
        "for name in ('boot', 'launcher', 'context', 'worker.nothing'):\n    try: __import__(name)\n"
        "    except ImportError as error: print(error)",
    )
    out = run(ours, "train.py", cwd=home, options=("-S",)).out
    assert out.splitlines() == [
        f"No module named {name!r}" for name in ("boot", "launcher", "context", "worker.nothing")
    ]


# --- the control line ------------------------------------------------------------------------------------------------


def test_the_start_is_told(tmp_path: Path) -> None:
    ended, records = told(script(tmp_path, ""), cwd=tmp_path)
    assert ended == (0, "", "")
    [started] = records
    assert isinstance(started.pop("time"), float)
    assert started == {"kind": "state", "state": "started", "python": sys.version.split()[0], "stacks": 255}


def test_a_program_reports_through_the_private_module(tmp_path: Path) -> None:
    program = script(
        tmp_path,
        "import os, time, _tflaunch_boot\n"
        "before = time.time()\n"
        "_tflaunch_boot.report('progress', step=7, loss=0.5, note='h\\xe9\\n', path=os)\n"
        "print(before, time.time())",
    )
    ended, [_, progress] = told(program, cwd=tmp_path)
    before, after = map(float, ended.out.split())
    stamp = progress.pop("time")
    assert isinstance(stamp, float)
    assert before <= stamp <= after
    assert progress["path"].__class__ is str
    assert {**progress, "path": ""} == {"kind": "progress", "step": 7, "loss": 0.5, "note": "h\xe9\n", "path": ""}


@pytest.mark.parametrize("value", ["", "abc", "987", "-1"])
def test_without_a_usable_descriptor_the_program_runs_all_the_same(value: str, tmp_path: Path) -> None:
    program = script(
        tmp_path, "import os, _tflaunch_boot\n_tflaunch_boot.report('x')\nprint('TFLAUNCH_CONTROL_FD' in os.environ)"
    )
    assert run(BOOT, program, cwd=tmp_path, env={boot.CONTROL_FD: value}) == (0, "False\n", "")


def test_the_descriptor_and_its_variable_stay_with_the_worker(tmp_path: Path) -> None:
    look = "import os; print(len(os.listdir('/proc/self/fd')), 'TFLAUNCH_CONTROL_FD' in os.environ)"
    program = script(
        tmp_path,
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {look!r}], close_fds=False, stdin=subprocess.DEVNULL)",
    )
    with_line, _ = told(program, cwd=tmp_path)
    assert with_line == run(program, cwd=tmp_path)


def test_a_closed_line_is_ignored(tmp_path: Path) -> None:
    program = script(tmp_path, "import _tflaunch_boot\n_tflaunch_boot.report('x')\nprint('well')\n1 / 0")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = run(BOOT, program, cwd=tmp_path, env={boot.CONTROL_FD: str(writer)}, pass_fds=[writer])
    finally:
        os.close(writer)
    assert ended == (1, "well\n", ended.err)
    assert ended.err.endswith("ZeroDivisionError: division by zero\n")
    assert "BrokenPipe" not in ended.err


def test_nothing_is_written_into_a_file_that_got_the_number_of_the_closed_line(tmp_path: Path) -> None:
    program = script(
        tmp_path,
        "import os, _tflaunch_boot\n"
        "os.closerange(3, 65536)\n"
        "files = [open(str(n), 'w') for n in range(20)]\n"
        "_tflaunch_boot.report('progress', step=1)\n"
        "print(sum(os.path.getsize(file.name) for file in files))",
    )
    ended, records = told(program, cwd=tmp_path)
    assert ended == (0, "0\n", "")
    assert [record["kind"] for record in records] == ["state"]


def test_a_forked_childs_reports_are_dropped(tmp_path: Path) -> None:
    program = script(
        tmp_path,
        "import os, _tflaunch_boot\n"
        "child = os.fork()\n"
        "if child:\n    os.waitpid(child, 0)\n"
        "_tflaunch_boot.report('progress', step=1 if child else 2)\n"
        "if not child:\n    raise ValueError",
    )
    _, records = told(program, cwd=tmp_path)
    assert [record.get("step") for record in records] == [None, 1]


def test_lines_from_threads_stay_whole(tmp_path: Path) -> None:
    program = script(
        tmp_path,
        "import threading, _tflaunch_boot\n"
        "def tell(n):\n    for step in range(50): _tflaunch_boot.report('progress', n=n, step=step, text='x' * 3000)\n"
        "for n in range(4): threading.Thread(target=tell, args=(n,)).start()",
    )
    _, [_, *records] = told(program, cwd=tmp_path)
    seen = sorted((record["n"], record["step"]) for record in records)
    assert seen == [(n, step) for n in range(4) for step in range(50)]


def test_a_report_that_cannot_be_written_harms_nobody(tmp_path: Path) -> None:
    program = script(
        tmp_path,
        "import _tflaunch_boot\n"
        "_tflaunch_boot.report('x', numbers=list(range(5000)))\n"
        "loop = []\nloop.append(loop)\n"
        "_tflaunch_boot.report('x', loop=loop)\n"
        "_tflaunch_boot.report('y')",
    )
    ended, records = told(program, cwd=tmp_path)
    assert ended == (0, "", "")
    assert [record["kind"] for record in records] == ["state", "y"]


@pytest.mark.parametrize(
    "text", ["x" * 100_000, "\0" * 5000, "\u20ac" * 5000, "\ud800" * 5000, '"' * 5000, "\n" * 4097]
)
def test_a_long_line_is_cut_to_the_limit(text: str) -> None:
    line = boot.encode({"kind": "error", "message": text, "traceback": text + "the end", "step": 7})
    record = json.loads(line)
    assert 0.8 * boot.LINE_LIMIT < len(line) <= boot.LINE_LIMIT
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert (record["kind"], record["step"]) == ("error", 7)
    assert len(record["message"]) > 100
    assert record["traceback"].endswith("the end")


def test_a_line_at_the_limit_is_left_alone() -> None:
    record = {"text": "x" * (boot.LINE_LIMIT - len('{"text": ""}\n'))}
    assert json.loads(boot.encode(record)) == record
    assert len(boot.encode(record)) == boot.LINE_LIMIT


def test_a_record_that_strings_do_not_make_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="without a string to cut"):
        boot.encode({"kind": "x", "numbers": list(range(5000))})


# --- the last record -------------------------------------------------------------------------------------------------


def test_an_uncaught_error_is_told(tmp_path: Path) -> None:
    program = script(tmp_path, "def step():\n    raise ValueError('bad batch')\n\nstep()")
    ended, [_, record] = told(program, cwd=tmp_path)
    assert isinstance(record.pop("time"), float)
    assert record == {
        "kind": "error",
        "type": "ValueError",
        "module": "builtins",
        "message": "bad batch",
        "traceback": ended.err,
        "where": "train.py:2",
        "victim": False,
    }


def test_an_error_is_told_before_the_process_ends(tmp_path: Path) -> None:
    program = script(
        tmp_path,
        "import atexit, time, _tflaunch_boot\natexit.register(_tflaunch_boot.report, 'later')\n1 / 0",
    )
    _, records = told(program, cwd=tmp_path)
    assert [record["kind"] for record in records] == ["state", "error", "later"]


@pytest.mark.parametrize("text", ["1 / 0", "def (:"])
def test_an_error_is_told_once_it_is_shown(text: str, tmp_path: Path) -> None:
    """A process that is stopped as soon as it has told why it ends has nothing left to write into its log."""
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, BOOT, script(tmp_path, text)],
        env={**os.environ, boot.CONTROL_FD: str(writer)},
        pass_fds=[writer],
        stderr=writer,
    ):
        os.close(writer)
        *_, shown, record = drain(reader)
    assert re.match(rb"ZeroDivisionError: |SyntaxError: ", shown)
    assert json.loads(record)["kind"] == "error"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("import json\njson.loads('{')", "train.py:2"),
        ("exec('1 / 0')", "train.py:1"),
        ("import helper\nhelper.f()", "helper.py:3"),
        ("import installed\n\ninstalled.f()", "train.py:3"),
        ("import broken", "broken.py:2"),
        ("x = 1\nif True print()", "train.py:2"),
    ],
)
def test_where_is_the_innermost_line_of_the_programs_own_code(text: str, where: str, tmp_path: Path) -> None:
    script(tmp_path, "\ndef f():\n    1 / 0", "helper.py")
    script(tmp_path, "def f(): 1 / 0", "site-packages/installed.py")
    script(tmp_path, "x = 1\nx =", "broken.py")
    program = script(
        tmp_path, text if "installed" not in text else f"import sys; sys.path.append('site-packages'); {text}"
    )
    assert last((program,), tmp_path)["where"] == where


def test_where_is_in_this_package_only_if_the_program_has_no_part_in_it(ours: Path, tmp_path: Path) -> None:
    script(ours.parent, "import json\ndef train(): json.loads('{')", "__init__.py")
    script(ours.parent, "import worker\nworker.train()", "__main__.py")
    _, [_, record] = told("--trainer", "digits", cwd=tmp_path, boot_file=ours)
    assert record["where"] == "__init__.py:2"
    program = script(tmp_path, "from worker.context import Context\nContext.from_environment({'TF_CONFIG': '{'})")
    assert last((program,), tmp_path)["where"] == "train.py:2"


@pytest.mark.parametrize(
    ("text", "status", "said", "where"),
    [
        ("import sys\nsys.exit(3)", 3, "", "train.py:2"),
        ("raise SystemExit('no data')", 1, "no data", "train.py:1"),
        ("import sys\nsys.exit(-1)", 255, "", "train.py:2"),
        ("import argparse\n\nargparse.ArgumentParser().error('no such flag')", 2, "", "train.py:3"),
    ],
)
def test_an_exit_with_a_status_is_told(text: str, status: int, said: str, where: str, tmp_path: Path) -> None:
    record = last((script(tmp_path, text),), tmp_path)
    assert isinstance(record.pop("time"), float)
    assert record == {"kind": "exit", "status": status, "text": said, "where": where, "victim": False}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "raise SystemExit",
        "raise SystemExit(0)",
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    pass",
        "import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()",
        "import os\nos._exit(3)",
    ],
)
def test_what_does_not_end_in_an_error_tells_of_none(text: str, tmp_path: Path) -> None:
    _, records = told(script(tmp_path, text), cwd=tmp_path)
    assert [record["kind"] for record in records] == ["state"]


@pytest.mark.parametrize(
    ("command", "kind", "type_name"),
    [
        (["missing.py"], "error", "FileNotFoundError"),
        (["broken.py"], "error", "SyntaxError"),
        (["-m", "missing"], "exit", None),
        (["interrupted.py"], "error", "KeyboardInterrupt"),
        (["hooked.py"], "error", "ZeroDivisionError"),
        (["textless.py"], "error", "Bad"),
        (["-m", "hooked"], "error", "ZeroDivisionError"),
    ],
)
def test_every_failure_leaves_a_record(command: list[str], kind: str, type_name: str | None, tmp_path: Path) -> None:
    script(tmp_path, "if", "broken.py")
    script(tmp_path, "raise KeyboardInterrupt", "interrupted.py")
    script(tmp_path, "import sys\nsys.excepthook = lambda *three: print('hooked')\n1 / 0", "hooked.py")
    script(tmp_path, str(PROGRAMS["no text"]), "textless.py")
    record = last(tuple(command), tmp_path)
    assert (record["kind"], record.get("type")) == (kind, type_name)


def test_a_record_that_cannot_be_made_does_not_hide_the_error(tmp_path: Path) -> None:
    script(tmp_path, "raise RuntimeError('not the traceback you look for')", "traceback.py")
    ended, records = told(script(tmp_path, "1 / 0"), cwd=tmp_path)
    assert [record["kind"] for record in records] == ["state"]
    assert ended == run("train.py", cwd=tmp_path)._replace(err=ended.err)
    assert "ZeroDivisionError" in ended.err
    assert "you look for" not in ended.err


def test_a_long_message_leaves_room_for_the_frames(tmp_path: Path) -> None:
    record = last((script(tmp_path, "def step():\n    raise ValueError('start ' + 'x' * 100_000)\nstep()"),), tmp_path)
    assert str(record["message"]).startswith("start xxx")
    assert "line 2, in step" in str(record["traceback"])


def test_the_wrapper_of_a_peers_error_is_a_victim_too(tmp_path: Path) -> None:
    text = "class UnavailableError(Exception): pass\nraise RuntimeError('training failed') from UnavailableError('Socket closed')"
    assert last((script(tmp_path, text),), tmp_path)["victim"] is True


STEPS = """
import sys
import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()

@tf.function
def step():
    return strategy.run(lambda: tf.distribute.get_replica_context().all_reduce("sum", tf.ones([])))

for number in range(1000):
    if number == 3 and sys.argv[1] == "0":
        raise ValueError("the cause")
    step()
"""


@pytest.mark.tensorflow
def test_tensorflow_makes_a_victim_of_the_peer(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    program = script(tmp_path, STEPS)
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        addresses = [f"127.0.0.1:{free.getsockname()[1]}" for free in (one, two)]

    def task(index: int) -> dict[str, object]:
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        _, records = told(
            program, str(index), cwd=tmp_path, env={"TF_CONFIG": json.dumps(config), "CUDA_VISIBLE_DEVICES": "-1"}
        )
        return records[-1]

    with ThreadPoolExecutor() as pool:
        cause, victim = pool.map(task, range(2))
    assert (cause["type"], cause["where"], cause["victim"]) == ("ValueError", "train.py:13", False)
    assert (victim["type"], victim["where"], victim["victim"]) == ("UnavailableError", "train.py:14", True)
