from __future__ import annotations

import pytest

from launcher.stacks import SILENT, UNFORKED, UNSTARTED, Answer, doing, report

PYTHON = "/opt/env/lib/python3.11"
LIBRARY = f"{PYTHON}/site-packages/tensorflow/python"
OURS = "/opt/env/lib/python3.11/site-packages/worker"
MAIN = ("/home/me/run/train.py", 30, "<module>")
BENEATH = [
    (f"{OURS}/boot.py", 181, "run_script"),
    (f"{OURS}/boot.py", 148, "main"),
    (f"{OURS}/start.py", 19, "<module>"),
]

Frames = list[tuple[str, int, str]]


def text(*threads: Frames, beneath: Frames = BENEATH, address: int = 1) -> str:
    """What faulthandler writes: the newest thread first, the main thread last."""
    whole = [*threads[:-1], [*threads[-1], *beneath]]
    blocks = [
        f"Thread 0x{address + at:016x} (most recent call first):\n"
        + "".join(f'  File "{file}", line {line} in {function}\n' for file, line, function in frames)
        for at, frames in enumerate(whole)
    ]
    return "\n".join(blocks).replace("Thread", "Current thread", 1)


def asleep(*threads: Frames, label: str = "worker 0", beneath: Frames = BENEATH, address: int = 1) -> Answer:
    return Answer(label, "S", text(*threads, beneath=beneath, address=address))


BOOTSTRAP = ("<frozen importlib._bootstrap>", 1176, "_find_and_load")
LIBRARY_ITSELF = (f"{PYTHON}/site-packages/tensorflow/__init__.py", 47, "<module>")
STEP = [(f"{LIBRARY}/eager/execute.py", 53, "quick_execute"), ("/home/me/run/train.py", 41, "step"), MAIN]
LOADS = [("/home/me/run/data/load.py", 12, "load"), MAIN]


class TestReport:
    def test_tasks_at_the_same_place_stand_together(self) -> None:
        answers = [asleep(STEP, label=f"worker {n}", address=n) for n in (0, 1, 2, 4)]
        answers.insert(3, asleep(LOADS, label="worker 3"))
        assert report(answers).lines == (
            "worker 0-2, 4 in quick_execute (tensorflow/python/eager/execute.py:53) <- step (train.py:41) <- train.py:30",
            "worker 3 in load (data/load.py:12) <- train.py:30",
        )

    def test_of_its_own_frames_the_innermost_are_shown(self) -> None:
        deep = [("/home/me/run/train.py", line, f"f{line}") for line in range(9)]
        assert report([asleep([*deep, MAIN])]).lines == (
            "worker 0 in f0 (train.py:0) <- f1 (train.py:1) <- f2 (train.py:2)",
        )

    def test_a_library_is_left_aside_unless_it_is_all_there_is(self) -> None:
        thread = [(f"{PYTHON}/threading.py", 320, "wait"), (f"{PYTHON}/threading.py", 1045, "_bootstrap")]
        assert report([asleep(thread, LOADS)]).lines == report([asleep(LOADS)]).lines
        assert report([asleep(thread, beneath=[])]).lines == (
            "worker 0 in wait (threading.py:320) <- _bootstrap (threading.py:1045)",
        )

    def test_threads_of_the_program_are_shown_and_counted(self) -> None:
        reads = [(f"{PYTHON}/queue.py", 171, "get"), ("/home/me/run/data/load.py", 7, "read")]
        assert report([asleep(reads, reads, LOADS)]).lines == (
            "worker 0 in load (data/load.py:12) <- train.py:30; 2 threads in get (queue.py:171) <- read (data/load.py:7)",
        )

    def test_what_wraps_a_library_for_the_program_is_not_the_program(self) -> None:
        wrapped = [(f"{LIBRARY}/eager/context.py", 745, "f"), (f"{OURS}/sigterm.py", 46, "__init__"), MAIN]
        assert report([asleep(wrapped)]).lines == (
            "worker 0 in f (tensorflow/python/eager/context.py:745) <- train.py:30",
        )

    def test_a_training_of_ours_is_the_program(self) -> None:
        trainer = [(f"{OURS}/train.py", 88, "all_reduce"), ("/home/me/my_task.py", 5, "model")]
        beneath = [("<frozen runpy>", 88, "_run_code"), *BENEATH]
        main = (f"{OURS}/__main__.py", 9, "<module>")
        assert report([Answer("worker 0", "S", text([*trainer, main], beneath=beneath))]).lines == (
            "worker 0 in all_reduce (worker/train.py:88) <- model (my_task.py:5) <- worker/__main__.py:9",
        )

    def test_a_program_that_is_installed_is_a_program(self) -> None:
        folder = f"{PYTHON}/site-packages/tool"
        frames = [
            (f"{PYTHON}/socket.py", 1, "recv"),
            (f"{folder}/net.py", 2, "get"),
            (f"{folder}/__main__.py", 3, "<module>"),
        ]
        assert report([asleep(frames)]).lines == ("worker 0 in recv (socket.py:1) <- get (net.py:2) <- __main__.py:3",)

    def test_an_import_is_told_as_one_wherever_it_is(self) -> None:
        frames = [
            [("<frozen importlib._bootstrap_external>", n, f"f{n}"), LIBRARY_ITSELF, BOOTSTRAP, MAIN] for n in (0, 1)
        ]
        answers = [asleep(own, label=f"worker {n}") for n, own in enumerate(frames)]
        assert report(answers).lines == ("worker 0-1 importing tensorflow <- train.py:30",)

    def test_an_import_may_be_deeper_than_its_stack(self) -> None:
        deep = [(f"{PYTHON}/site-packages/keras/x.py", 1, "<module>"), BOOTSTRAP, LIBRARY_ITSELF, BOOTSTRAP]
        answer = Answer("worker 0", "R", text(deep, beneath=[]) + "  ...\n")
        assert report([asleep([BOOTSTRAP, MAIN], beneath=BENEATH[:1])]).lines == (
            "worker 0 importing a module <- train.py:30",
        )
        assert report([answer]).lines == ("worker 0 importing tensorflow",)
        assert doing([answer]) == "importing tensorflow"

    def test_at_its_first_line_it_is_at_a_place(self) -> None:
        assert report([asleep([MAIN])]).lines == ("worker 0 at train.py:30",)
        assert report([asleep([])]).lines == ("worker 0 starting",)

    @pytest.mark.parametrize(
        ("state", "words"),
        [
            ("T", "stopped by a signal"),
            ("t", "stopped by a debugger"),
            ("D", "waiting for a disk, or a device"),
            ("Z", "gone"),
            ("", "gone"),
            (UNSTARTED, "not started yet"),
            (UNFORKED, "waiting for the import of TensorFlow"),
            (SILENT, "on a host that does not answer"),
            ("S", "told nothing (no Python worker, or a very busy one)"),
            ("R", "told nothing (no Python worker, or a very busy one)"),
        ],
    )
    def test_of_one_that_tells_nothing_the_kernel_does(self, state: str, words: str) -> None:
        answers = [Answer("worker 0", state, ""), Answer("worker 1", state, "")]
        assert report(answers).lines == (f"worker 0-1 {words}",)
        assert report(answers).full == f"worker 0-1:\n  {words}\n"

    @pytest.mark.parametrize("odd", ["nonsense", "Current thread 0x1 (most recent call first):\n", "  ...\n"])
    def test_what_is_no_stack_is_nothing(self, odd: str) -> None:
        assert report([Answer("worker 0", "S", odd)]).lines == (
            "worker 0 told nothing (no Python worker, or a very busy one)",
        )

    def test_nobody_is_nowhere(self) -> None:
        assert report([]) == ((), "")


class TestFull:
    def test_it_has_all_threads_and_each_stack_once(self) -> None:
        reads = [("/home/me/run/data/load.py", 7, "read")]
        answers = [asleep(reads, LOADS, label=f"worker {n}", address=16 * n + 1) for n in range(2)]
        assert report([*answers, Answer("worker 2", "T", "")]).full.splitlines() == [
            "worker 0-1:",
            "  main thread (most recent call first):",
            '    File "/home/me/run/data/load.py", line 12 in load',
            '    File "/home/me/run/train.py", line 30 in <module>',
            "  thread (most recent call first):",
            '    File "/home/me/run/data/load.py", line 7 in read',
            "",
            "worker 2:",
            "  stopped by a signal",
        ]

    def test_what_it_does_not_know_stays(self) -> None:
        cut = 'Thread 0x1 (most recent call first):\n  File "/a.py", line ??? in f\n  ...\n'
        assert report([Answer("worker 0", "S", cut)]).full.splitlines()[2:] == [
            '    File "/a.py", line ??? in f',
            "    ...",
        ]


class TestDoing:
    @pytest.mark.parametrize(
        ("frames", "phrase"),
        [
            ([(f"{LIBRARY}/__init__.py", 47, "<module>"), BOOTSTRAP, MAIN], "importing tensorflow"),
            (
                [("/x/lib/python3.11/site-packages/keras/a.py", 1, "<module>"), BOOTSTRAP,
                 (f"{LIBRARY}/__init__.py", 47, "<module>"), BOOTSTRAP, ("/home/me/run/model.py", 1, "<module>"), BOOTSTRAP, MAIN],
                "importing tensorflow",
            ),
            ([BOOTSTRAP, MAIN], "importing a module"),
            ([(f"{PYTHON}/typing.py", 3, "<module>"), BOOTSTRAP, MAIN], "importing typing"),
            (
                [(f"{LIBRARY}/eager/context.py", 745, "ensure_initialized"), (f"{LIBRARY}/distribute/x.py", 1, "f"), MAIN],
                "waiting for peers",
            ),
            (
                [(f"{PYTHON}/ssl.py", 1, "read"), (f"{PYTHON}/urllib/request.py", 2, "urlopen"), LOADS[0], MAIN],
                "downloading in load() of data/load.py:12",
            ),
            (LOADS, "in load() of data/load.py:12"),
            (STEP, "in step() of train.py:41"),
            ([MAIN], "at train.py:30"),
            ([], "starting"),
        ],
    )  # fmt: skip
    def test_it_is_a_phrase(self, frames: Frames, phrase: str) -> None:
        assert doing([asleep(frames)]) == phrase

    def test_with_names_where_it_differs(self) -> None:
        answers = [asleep(LOADS, label=f"worker {n}") for n in (0, 1)]
        assert doing(answers) == "in load() of data/load.py:12"
        stopped = Answer("worker 2", "T", "")
        assert doing([*answers, stopped]) == "worker 0-1 in load() of data/load.py:12; worker 2 stopped by a signal"
