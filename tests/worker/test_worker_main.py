from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from worker.__main__ import main, parse
from worker.rhythm import Best, Every
from worker.tasks import Settings

if TYPE_CHECKING:
    from tests.worker.conftest import Processes


def settings(*flags: str, **environment: str) -> Settings:
    return parse(["digits", *flags], environment)[1]


def test_a_task_brings_its_defaults() -> None:
    assert settings() == Settings(20, 64, 0.002, 0, "checkpoints/digits")


def test_flags_override_the_defaults() -> None:
    flags = "--epochs 3 --global-batch 10 --learning-rate 1e-4 --seed 9 --checkpoint-dir here"
    assert settings(*flags.split()) == Settings(3, 10, 1e-4, 9, "here")


def test_flags_say_when_to_save_and_what_to_keep() -> None:
    flags = ["--save-every", "100 steps, 1 h", "--keep", "5", "--keep-best", "min:loss", "--fresh", "--export"]
    every = Every(steps=100, seconds=3600)
    expected = replace(settings(), save_every=every, keep=5, keep_best=Best("loss", "min"), fresh=True, export=True)
    assert settings(*flags) == expected


def test_a_second_attempt_goes_on_from_what_the_first_has_begun_anew() -> None:
    assert settings("--fresh", TFLAUNCH_ATTEMPT="0").fresh
    assert not settings("--fresh", TFLAUNCH_ATTEMPT="1").fresh


@pytest.mark.parametrize(
    ("flags", "expected"), [([], "from environment"), (["--checkpoint-dir", "from flag"], "from flag")]
)
def test_the_environment_names_a_checkpoint_directory(flags: list[str], expected: str) -> None:
    assert settings(*flags, TFLAUNCH_CHECKPOINT_DIR="from environment").checkpoint_dir == expected


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("digts", "no task is called 'digts'; did you mean digits?"),
        ("zebra", "no task is called 'zebra'; there is digits"),
        ("", "required: TASK"),
        ("digits --epochs 0", "--epochs: '0' is not a whole number from 1"),
        ("digits --global-batch 1.5", "--global-batch: '1.5' is not a whole number from 1"),
        ("digits --seed x", "--seed: 'x' is not a whole number from 0"),
        ("digits --learning-rate nan", "--learning-rate: 'nan' is not a number above 0"),
        ("digits --learning-rate fast", "--learning-rate: 'fast' is not a number above 0"),
        ("digits --save-every often", "--save-every: 'often' is not like '100 steps', '30 s'"),
        ("digits --keep 0", "--keep: '0' is not a whole number from 1"),
        ("digits --keep-best loss", "--keep-best: 'loss' is not like 'min:loss'"),
        ("digits --colour red", "unrecognized arguments: --colour red"),
    ],
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
    assert main(["digits"], {"TF_CONFIG": config}) == status
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
