from __future__ import annotations

import pickle
import sys
from pathlib import Path

from launcher.testing.call import Answer, Call, Work


def test_work_has_a_name_that_a_directory_can_have() -> None:
    assert Work.of(lambda: None, (), {}).name == "lambda"
    assert Work.of(pickle.dumps, (), {}).name == "dumps"


def test_what_is_sent(tmp_path: Path) -> None:
    call = Call(tmp_path / "call")
    faults = {"worker:0": {"steps": [(5, "SIGKILL")]}}
    call.send(Work("f", b"pickled"), faults)
    order = pickle.loads(call.payload.read_bytes())
    assert order == {"function": b"pickled", "script": [], "path": sys.path, "faults": faults}


def test_who_left_nothing_has_no_answer(tmp_path: Path) -> None:
    assert Call(tmp_path).answer("worker-0") == Answer()


def test_answers_and_stacks(tmp_path: Path) -> None:
    (tmp_path / "worker-0.pickle").write_bytes(pickle.dumps({"error": b"e", "traceback": "t"}))
    (tmp_path / "worker-0.stacks").write_text(
        'Thread 0x1 (most recent call first):\n  File "/home/me/train.py", line 3 in step\n'
        '  File "/p/worker/call.py", line 3 in call\n  File "/p/worker/boot.py", line 9 in main\n'
    )
    answer = Call(tmp_path).answer("worker-0")
    assert answer.error == b"e"
    assert answer.traceback == "t"
    assert answer.stacks == 'Thread 0x1 (most recent call first):\n  File "/home/me/train.py", line 3 in step'
