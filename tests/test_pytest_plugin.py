"""The plugin as a user has it: test files of his own, run by pytest, with real clusters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

# pytester forgets what was imported while it ran pytest in this process; half of a package is worse than none of it.
import cloudpickle  # noqa: F401
import pytest

from launcher import plan, testing, warmth  # noqa: F401
from launcher.engines import local
from tests.acceptance.conftest import MARK, PATIENCE, gone, living

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psutil

pytest_plugins = ["pytester"]

Lines = list[str]


@pytest.fixture(autouse=True)
def no_settings_of_ours(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider --strict-markers\n")


def run(pytester: pytest.Pytester, text: str, *options: str) -> tuple[dict[str, int], str]:
    """Run a test file; returns how often each outcome came, and all that pytest said."""
    pytester.makepyfile(text)
    result = pytester.runpytest_inprocess("--strict-config", *options)
    return result.parseoutcomes(), result.stdout.str()


def passes(pytester: pytest.Pytester, text: str, count: int = 1) -> None:
    outcomes, said = run(pytester, text)
    assert outcomes == {"passed": count}, said


def fails(pytester: pytest.Pytester, text: str, *options: str) -> str:
    outcomes, said = run(pytester, text, *options)
    assert outcomes == {"failed": 1}, said
    return said


def errors(said: str) -> Lines:
    """What pytest shows as the exception."""
    return [line[1:].strip() for line in said.splitlines() if line.startswith("E  ")]


def test_it_costs_next_to_nothing_to_have_it() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import launcher.pytest_plugin;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["launcher", "launcher.pytest_plugin"]


class TestFunctions:
    def test_it_runs_in_every_task_and_returns_in_their_order(self, pytester: pytest.Pytester) -> None:
        passes(
            pytester,
            """
            import json, os

            def place(plus):
                config = json.loads(os.environ["TF_CONFIG"])
                return config["task"]["index"] + plus, len(config["cluster"]["worker"]), os.getpid()

            def test(tf_cluster):
                indices, sizes, pids = zip(*tf_cluster(3).run(place, plus=7))
                assert indices == (7, 8, 9)
                assert sizes == (3, 3, 3)
                assert len({*pids, os.getpid()}) == 4
            """,
        )

    def test_closures_lambdas_and_what_the_module_defines_come_along(self, pytester: pytest.Pytester) -> None:
        passes(
            pytester,
            """
            import dataclasses
            import functools

            @dataclasses.dataclass
            class Point:
                x: int

            LIMIT = 3

            def double(x):
                return 2 * x

            def test(tf_cluster, tmp_path):
                cluster = tf_cluster(2)
                assert cluster.run(lambda: double(LIMIT)) == [6, 6]
                assert cluster.run(functools.partial(double, 4)) == [8, 8]
                assert cluster.run(lambda: Point(str(tmp_path))) == [Point(str(tmp_path))] * 2
                assert cluster.run(Point, 1) == [Point(1)] * 2
            """,
        )

    def test_modules_beside_the_test_are_found(self, pytester: pytest.Pytester) -> None:
        pytester.makepyfile(steps="def steps():\n    return 5\n")
        passes(
            pytester, "from steps import steps\n\ndef test(tf_cluster):\n    assert tf_cluster(1).run(steps) == [5]\n"
        )

    def test_jobs_are_those_of_run(self, pytester: pytest.Pytester) -> None:
        passes(
            pytester,
            """
            import os, time
            import pytest

            def name(*servers):
                job, _, index = os.environ["TFLAUNCH_TASK"].partition(":")
                while job in servers:
                    time.sleep(1)
                return job, index

            @pytest.mark.tf_cluster(2, chief=True, evaluator=1)
            def test(tf_cluster):
                names = [("chief", "0"), ("worker", "0"), ("worker", "1"), ("evaluator", "0")]
                assert tf_cluster().run(name) == names
                assert tf_cluster(1, chief=False).run(name) == [names[1], names[3]]
                assert tf_cluster(1, ps=1, evaluator=0).run(name, "worker", "ps") == [names[0], None, None]
            """,
        )

    def test_environment_and_directory_are_the_tests_own(self, pytester: pytest.Pytester) -> None:
        passes(
            pytester,
            """
            import os

            def look():
                return os.environ.get("LR"), os.getcwd()

            def test_first(tf_cluster, monkeypatch, tmp_path):
                monkeypatch.setenv("LR", "0.1")
                monkeypatch.chdir(tmp_path)
                assert tf_cluster(1).run(look) == [("0.1", str(tmp_path))]
                assert tf_cluster(1, env={"LR": "0.2"}).run(look) == [("0.2", str(tmp_path))]

            def test_without(tf_cluster):
                assert tf_cluster(1).run(look) == [(None, os.getcwd())]
            """,
            count=2,
        )

    def test_the_agent_stays_from_test_to_test(self, pytester: pytest.Pytester) -> None:
        passes(
            pytester,
            """
            import os
            import pytest

            agents = set()

            @pytest.mark.parametrize("n", range(3))
            def test(tf_cluster, n):
                agents.update(tf_cluster(2).run(os.getppid))
                assert len(agents) == 1
            """,
            count=3,
        )

    def test_clusters_at_the_same_time_have_an_agent_each(self, pytester: pytest.Pytester) -> None:
        passes(
            pytester,
            """
            import os, time

            def wait_for(path):
                while not path.exists():
                    time.sleep(0.01)
                return os.getppid()

            def test(tf_cluster, tmp_path):
                runs = [tf_cluster(1).start(wait_for, tmp_path / "go") for _ in range(2)]
                assert not any(run.over for run in runs)
                (tmp_path / "go").touch()
                assert len({run.result()[0] for run in runs}) == 2
            """,
        )


class TestFailures:
    def test_the_traceback_of_the_task_comes_first_and_then_its_victims(self, pytester: pytest.Pytester) -> None:
        said = fails(
            pytester,
            """
            import os, time

            class UnavailableError(Exception): ...

            def step(folder):
                print("this is", os.environ["TFLAUNCH_TASK"])
                if os.environ["TFLAUNCH_TASK"] == "worker:0":
                    (folder / "victim").touch()
                    raise UnavailableError("Socket closed")
                while not (folder / "victim").exists():
                    time.sleep(0.01)
                raise ValueError("loss is no number")

            def test(tf_cluster, tmp_path):
                cluster = tf_cluster(2)
                cluster.at_step(10**9, kill=0)  # so that nobody is stopped because another one failed
                cluster.run(step, tmp_path)
            """,
        )
        first, victim = (errors(said).index(line) for line in ("worker 1:", "worker 0, failed because of it:"))
        assert errors(said)[0] == (
            "launcher.testing.TaskFailed: worker 1 failed first: ValueError: loss is no number "
            "(test_the_traceback_of_the_task_comes_first_and_then_its_victims.py:12)"
        )
        assert first < errors(said).index("ValueError: loss is no number") < victim
        assert 'raise ValueError("loss is no number")' in errors(said)
        assert "Captured worker 1 call" in said
        assert "this is worker:1" in said
        assert "launcher/testing/" not in said.replace(os.sep, "/")

    def test_a_mistake_that_all_make_is_told_once(self, pytester: pytest.Pytester) -> None:
        said = fails(
            pytester,
            """
            def train():
                import tensorflow_of_another_planet

            def test(tf_cluster):
                tf_cluster(3).run(train)
            """,
        )
        assert errors(said).count("ModuleNotFoundError: No module named 'tensorflow_of_another_planet'") == 1

    def test_an_assert_in_a_task_is_explained(self, pytester: pytest.Pytester) -> None:
        pytester.makepyfile(
            """
            def check(found):
                assert found == {"a": 1}

            def test(tf_cluster):
                tf_cluster(1).run(check, {"a": 2})
            """
        )
        # A pytest within pytest leaves asserts as they are.
        said = pytester.runpytest_subprocess().stdout.str()
        assert "AssertionError: assert {'a': 2} == {'a': 1}" in errors(said)

    def test_a_deadline_shows_where_everybody_is(self, pytester: pytest.Pytester) -> None:
        said = fails(
            pytester,
            """
            import time

            def hang():
                time.sleep(1000)

            def test(tf_cluster):
                tf_cluster(2, timeout=4).run(hang)
            """,
        )
        assert errors(said)[0] == "launcher.testing.TaskFailed: the run's deadline of 4 s passed"
        found = errors(said)
        place = next(at for at, line in enumerate(found) if "line 4 in hang" in line)
        assert found[place - 2 : place] == ["worker 0-1:", "main thread (most recent call first):"]

    def test_one_that_does_not_return_is_named(self, pytester: pytest.Pytester) -> None:
        said = fails(
            pytester,
            """
            import os

            def leave():
                os.environ["TFLAUNCH_TASK"] == "worker:1" and os._exit(0)

            def test(tf_cluster):
                tf_cluster(2).run(leave)
            """,
        )
        assert errors(said)[0] == "launcher.testing.TaskFailed: worker 1 ended without returning"

    @pytest.mark.parametrize(
        ("call", "error"),
        [
            (
                "tf_cluster(1).run(lambda: LOCK.locked())",
                "RequestError: <lambda> cannot be sent to its tasks: LOCK, a lock, cannot be pickled",
            ),
            (
                "tf_cluster(1).run(print, LOCK)",
                "RequestError: print cannot be sent to its tasks: argument 1, a lock, cannot be pickled",
            ),
            (
                "tf_cluster(2).run(threading.Lock)",
                "TypeError: allocate_lock returned a lock that cannot be pickled: cannot pickle '_thread.lock' object",
            ),
            ("tf_cluster(0)", "ConfigError: workers=: must be at least 1, got 0"),
            (
                "tf_cluster(3, ports='20000-20001')",
                "ConfigError: ports=: hold 2 ports, but one host needs 3, one for each of its tasks",
            ),
            ("tf_cluster(60_000)", "UnavailableError: 60000 tasks need 351.6 GiB of memory"),
            ("tf_cluster(2, gpus=99)", "tasks need 198: 2 with 99 each"),
            ("tf_cluster(2).kill(1)", "RequestError: nothing runs in this cluster"),
            ("tf_cluster(2).at_step(1, kill=2)", "RequestError: there is no task 2 in this cluster"),
            ("tf_cluster(2).at_step(1)", "RequestError: nothing is to happen at that step"),
            ("tf_cluster(2).run_script('nowhere.py')", "RequestError: no such script: nowhere.py"),
        ],
    )
    def test_bad_input_is_one_clear_error(self, pytester: pytest.Pytester, call: str, error: str) -> None:
        said = fails(pytester, f"import threading\nLOCK = threading.Lock()\n\ndef test(tf_cluster):\n    {call}\n")
        assert error in " ".join(errors(said))
        assert "launcher/" not in said.replace(os.sep, "/")

    def test_a_task_starts_no_clusters(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TFLAUNCH_TASK", "worker:1")
        said = fails(pytester, "def test(tf_cluster):\n    tf_cluster(2)\n")
        assert errors(said)[0] == "launcher.errors.RequestError: this is worker 1 of a cluster already"


UNTIL_KILLED = """
import itertools, os, sys, time
from worker import report

def forever():
    os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "1000")
    for step in itertools.count():
        report("progress", step=step)
        time.sleep(0.01)

def test(tf_cluster):
    cluster = tf_cluster(2)
    run = cluster.start(forever)
    cluster.until_step(1, 0)
    cluster.until_step(1, 1)
    print("up", flush=True)
    {then}
"""


@pytest.fixture
def start(pytester: pytest.Pytester) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts pytest on a test whose cluster runs for ever; whatever that leaves behind fails the test."""
    mark = uuid.uuid4().hex
    started: list[subprocess.Popen[str]] = []

    def begin(then: str, *options: str) -> subprocess.Popen[str]:
        pytester.makepyfile(UNTIL_KILLED.format(then=then))
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-s", *options],
            env={**os.environ, MARK: mark},
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,  # noqa: PLW1509
        )
        started.append(process)
        return process

    def left() -> list[psutil.Process]:
        return living(lambda process: process.environ().get(MARK) == mark)

    yield begin
    for process in started:
        process.kill()
        process.communicate()
    gone(left)


def until_up(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert any("up" in line for line in process.stdout)


class TestNothingIsLeft:
    @pytest.mark.parametrize("then", ["run.wait()", "time.sleep(1000)"])
    def test_after_ctrl_c(self, start: Callable[..., Any], then: str) -> None:
        process = start(then)
        until_up(process)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == pytest.ExitCode.INTERRUPTED, said

    def test_when_pytest_is_killed(self, start: Callable[..., Any]) -> None:
        process = start("time.sleep(1000)")
        until_up(process)
        process.kill()
        process.communicate(timeout=PATIENCE)

    @pytest.mark.parametrize("then", ["assert False", "run.over and None"])
    def test_when_a_test_ends_before_its_cluster(self, start: Callable[..., Any], then: str) -> None:
        process = start(then)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == (then == "assert False")

    @pytest.mark.parametrize("method", ["signal", "thread"])
    def test_when_the_test_takes_too_long(self, start: Callable[..., Any], method: str) -> None:
        process = start("run.wait()", "--timeout=1", f"--timeout-method={method}")
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1, said
        assert "Timeout" in said


def test_each_xdist_worker_has_clusters_of_its_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os
        import pytest

        @pytest.mark.parametrize("n", range(4))
        def test(tf_cluster, n):
            assert tf_cluster(2).run(lambda: n) == [n, n]
        """
    )
    pytester.runpytest_subprocess("-n", "2").assert_outcomes(passed=4)


class TestFaults:
    def test_at_the_very_step(self, pytester: pytest.Pytester) -> None:
        passes(
            pytester,
            """
            from worker import report

            def train(folder):
                for step in range(10):
                    (folder / str(step)).touch()
                    report("progress", step=step)
                return "done"

            def test(tf_cluster, tmp_path):
                folders = [tmp_path / name for name in "ab"]
                for folder in folders:
                    folder.mkdir()
                cluster = tf_cluster(1)
                cluster.at_step(5, kill=0)
                assert cluster.start(train, folders[0]).wait().fates == ("failed",)
                assert len(list(folders[0].iterdir())) == 6
                assert cluster.run(train, folders[1]) == ["done"]
            """,
        )

    def test_others_are_left_to_notice(self, pytester: pytest.Pytester) -> None:
        passes(
            pytester,
            """
            import os, time

            def watch(path):
                while os.environ["TFLAUNCH_TASK"] == "worker:0" or not path.exists():
                    time.sleep(0.01)
                return "noticed"

            def test(tf_cluster, tmp_path):
                cluster = tf_cluster(2)
                run = cluster.start(watch, tmp_path / "killed")
                cluster.kill(0)
                (tmp_path / "killed").touch()
                ended = run.wait()
                assert ended.fates == ("failed", "done")
                assert ended.values() == [None, "noticed"]
                assert "killed by SIGKILL" in ended.story()
            """,
        )

    def test_paused_slowed_down_and_resumed(self, pytester: pytest.Pytester) -> None:
        passes(
            pytester,
            """
            import itertools, time
            import psutil
            import pytest
            from launcher.errors import RequestError
            from worker import report

            def count(path):
                report("progress", step=psutil.Process().pid)
                for _ in itertools.count():
                    if path.exists():
                        return "done"

            def test(tf_cluster, tmp_path):
                cluster = tf_cluster(1)
                run = cluster.start(count, tmp_path / "go")
                cluster.until_step(1)
                process = psutil.Process(run._steps[0])
                cluster.pause(0)
                assert process.status() == psutil.STATUS_STOPPED
                cluster.slow(0, cpu=0.2)
                seen = set()
                while len(seen) < 2:
                    seen.add(process.status() == psutil.STATUS_STOPPED)
                cluster.resume("worker 0")
                (tmp_path / "go").touch()
                assert run.result() == ["done"]
            """,
        )

    def test_a_fault_that_comes_too_late_is_an_error(self, pytester: pytest.Pytester) -> None:
        passes(
            pytester,
            """
            import os, time
            import pytest
            from launcher.errors import RequestError
            from worker import report

            def end(path):
                while os.environ["TFLAUNCH_TASK"] == "worker:0" and not path.exists():
                    time.sleep(0.01)

            def test(tf_cluster, tmp_path):
                cluster = tf_cluster(2)
                run = cluster.start(end, tmp_path / "go")
                with pytest.raises(RequestError, match="worker 1 ended before it reported step 1"):
                    (tmp_path / "go").touch()
                    cluster.until_step(1, 1)
                with pytest.raises(RequestError, match="nothing runs"):
                    cluster.pause(1)
            """,
        )

    def test_a_full_disk(self, pytester: pytest.Pytester) -> None:
        outcomes, said = run(
            pytester,
            """
            import errno
            import pytest

            def fill(path):
                (path / "small").write_text("x" * 100)
                try:
                    (path / "large").write_text("x" * 100_000)
                except OSError as error:
                    return error.errno

            def test(tf_cluster, tmp_path):
                (tmp_path / "before").touch()
                cluster = tf_cluster(2)
                cluster.full_disk(tmp_path, room=4096)
                assert cluster.run(fill, tmp_path) == [errno.ENOSPC] * 2
                assert [path.name for path in tmp_path.iterdir()] == ["before"]
            """,
            "-rs",
        )
        if "skipped" in outcomes:
            assert "no disk of its own can be mounted at" in said
            pytest.skip("the system does not let a process mount a disk for itself")
        assert outcomes == {"passed": 1}, said

    def test_what_cannot_be_done_here_is_skipped_with_a_reason(
        self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        without_ip = "import launcher.agent.switch as switch; switch._SBIN = ''; "
        monkeypatch.setattr("launcher.engines.local._START", local._START.replace("from", f"{without_ip}from", 1))
        monkeypatch.setenv("PATH", "/nowhere")
        test = "import os\ndef test(tf_cluster):\n    tf_cluster(3, links=True).start(os.getpid)\n    assert False\n"
        outcomes, said = run(pytester, test, "-rs")
        assert outcomes == {"skipped": 1}, said
        assert "no network between its tasks: it takes the program ip" in said or "no private network" in said


def test_scripts_run_as_under_tflaunch_run(pytester: pytest.Pytester) -> None:
    pytester.mkdir("training").joinpath("model.py").write_text("NAME = 'small'\n")
    pytester.path.joinpath("training", "train.py").write_text(
        "import sys, model\nfrom worker import report\n"
        "if __name__ == '__main__':\n"
        "    print(model.NAME, *sys.argv[1:])\n"
        "    for step in range(10):\n        report('progress', step=step)\n"
        "    print('done')\n"
    )
    passes(
        pytester,
        """
        def test(tf_cluster):
            cluster = tf_cluster(2)
            assert cluster.run_script("training/train.py", ["--lr", 0.1]).outputs == ("small --lr 0.1\\ndone\\n",) * 2
            cluster.at_step(5, kill=1)
            ended = cluster.start_script("training/train.py").wait()
            assert ended.outputs == ("small\\ndone\\n", "small\\n")
        """,
    )


TRAINING = """
import json, os
from worker import report

def train(steps):
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    mine = json.loads(os.environ["TF_CONFIG"])["task"]["index"] + 1.0

    @tf.function
    def step():
        return strategy.reduce("SUM", strategy.run(lambda: tf.constant(mine)), axis=None)

    total = 0.0
    for number in range(steps):
        total += float(step())
        report("progress", step=number)
    return total
"""


@pytest.mark.tensorflow
@pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
class TestTensorFlow:
    def test_workers_reduce_from_test_to_test(self, pytester: pytest.Pytester) -> None:
        passes(
            pytester,
            TRAINING
            + """
def test_first(tf_cluster):
    assert tf_cluster(2).run(train, 5) == [15.0, 15.0]

def test_second(tf_cluster):
    run = tf_cluster(2).start(train, 3)
    assert run.result() == [9.0, 9.0]
    plan = json.loads((run.run_dir.path / "run.json").read_text())
    assert [task["warm"] for task in plan["tasks"]] == [True, True]
    assert "cold" not in (run.run_dir.path / "events.jsonl").read_text()
""",
            count=2,
        )

    def test_a_worker_is_killed_in_the_midst_of_it(self, pytester: pytest.Pytester) -> None:
        said = fails(
            pytester,
            TRAINING
            + """
def test(tf_cluster):
    cluster = tf_cluster(2)
    cluster.at_step(3, kill=1)
    cluster.run(train, 10)
""",
        )
        assert errors(said)[0] == "launcher.testing.TaskFailed: worker 1 failed first: killed by SIGKILL"
        assert "worker 0, failed because of it:" in errors(said)
