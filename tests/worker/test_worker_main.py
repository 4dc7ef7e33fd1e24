from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from worker.__main__ import main

if TYPE_CHECKING:
    from tests.worker.conftest import Processes


@pytest.mark.parametrize(
    ("arguments", "told"), [("digits --epochs 0", "--epochs: '0' is not a whole number from 1"), ("", "required: TASK")]
)
def test_a_bad_command_line_is_told_in_one_line(arguments: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments.split(), {})
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert told in output.err
    assert (output.err.count("\n"), output.out) == (1, "")


@pytest.mark.parametrize(
    ("config", "status", "told"),
    [
        ("{", 2, "TF_CONFIG is not JSON"),
        (
            json.dumps({"cluster": {"worker": ["a:1"]}, "task": {"type": "evaluator", "index": 0}}),
            0,
            "evaluator 0: digits trains on the chief and the workers alone",
        ),
        (
            json.dumps({"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}),
            2,
            "take ps out of the cluster",
        ),
    ],
)
def test_a_place_without_training_is_told_in_one_line(
    config: str, status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        ended = main(["digits"], {"TF_CONFIG": config})
    except SystemExit as leaving:
        ended = int(str(leaving.code))
    assert ended == status
    output = capsys.readouterr()
    assert told in output.out + output.err
    assert (output.out + output.err).count("\n") == 1


def test_without_tensorflow_it_says_what_to_install(processes: Processes) -> None:
    # -S leaves site-packages out, and so TensorFlow, NumPy and all else that is not Python's own.
    assert processes.run("-S", "-m", "worker", "digits") == (
        69,
        "",
        "tflaunch's trainer needs TensorFlow: install tflaunch[tensorflow]\n",
    )


def test_the_help_needs_no_tensorflow(processes: Processes) -> None:
    ended = processes.run("-S", "-m", "worker", "--help")
    assert ended.status == 0
    assert "--checkpoint-dir DIR" in ended.out


def test_what_tensorflow_logs_while_it_loads_is_held_back_unless_it_fails(processes: Processes) -> None:
    program = """
import os
from worker.__main__ import _without_chatter
with _without_chatter():
    os.write(2, b"dropped\\n")
del os.environ["TF_CPP_MIN_LOG_LEVEL"]
try:
    with _without_chatter():
        os.write(2, b"the cause\\n")
        raise ImportError
except ImportError:
    os.write(2, b"caught\\n")
with _without_chatter():
    os.write(2, b"wanted\\n")
"""
    assert processes.run("-c", program).err == "the cause\ncaught\nwanted\n"


def test_the_level_of_tensorflows_log_is_set(processes: Processes) -> None:
    program = """
import os
from worker.__main__ import _without_chatter
with _without_chatter():
    print(os.environ["TF_CPP_MIN_LOG_LEVEL"])
"""
    assert "TF_CPP_MIN_LOG_LEVEL" not in os.environ
    assert processes.run("-c", program).out == "2\n"
