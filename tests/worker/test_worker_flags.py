from __future__ import annotations

from typing import Any

import pytest

from worker.checkpoint.rhythm import Best, Every
from worker.flags import FlagError, parse, settings
from worker.settings import Patience, Settings
from worker.task import find
from worker.tasks import NAMES


def chosen(flags: str = "", **environment: str) -> Settings:
    given = parse(["digits", *flags.split()])
    return settings(find(given.pop("task"), NAMES), given, environment)


def test_a_task_brings_its_defaults() -> None:
    assert chosen() == Settings.of(find("digits", NAMES))


@pytest.mark.parametrize(
    ("flags", "attribute", "value"),
    [
        ("--epochs 3", "epochs", 3),
        ("--steps 7", "steps", 7),
        ("--global-batch 10", "global_batch", 10),
        ("--data there", "data", "there"),
        ("--optimizer sgd", "optimizer", "sgd"),
        ("--learning-rate 1e-4", "learning_rate", 1e-4),
        ("--clip-norm 0.5", "clip_norm", 0.5),
        ("--micro-batches 4", "micro_batches", 4),
        ("--precision mixed_bfloat16", "precision", "mixed_bfloat16"),
        ("--seed 9", "seed", 9),
        ("--patience 3:min:val_loss", "patience", Patience(3, "val_loss", "min")),
        ("--checkpoint-dir here", "checkpoint_dir", "here"),
        ("--save-every 10steps", "save_every", Every(steps=10)),
        ("--keep 5", "keep", 5),
        ("--keep-best max:accuracy", "keep_best", Best("accuracy", "max")),
        ("--fresh", "fresh", True),
        ("--export", "export", True),
        ("--tensorboard", "tensorboard", True),
        ("--strategy mirrored", "strategy", "mirrored"),
        ("--communication ring", "communication", "ring"),
        ("--steps-per-call 5", "steps_per_call", 5),
        ("--virtual-devices 2", "virtual_devices", 2),
    ],
)
def test_flags_override_them(flags: str, attribute: str, value: Any) -> None:
    assert getattr(chosen(flags), attribute) == value


@pytest.mark.parametrize(("flags", "expected"), [("", "from environment"), ("--checkpoint-dir flag", "flag")])
def test_the_environment_names_a_checkpoint_directory(flags: str, expected: str) -> None:
    assert chosen(flags, TFLAUNCH_CHECKPOINT_DIR="from environment").checkpoint_dir == expected


def test_the_run_is_known_to_which_all_attempts_belong() -> None:
    assert chosen("--fresh", TFLAUNCH_RUN="digits-1").run == "digits-1"
    assert chosen("--fresh").run == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "required: TASK"),
        ("digits --epochs 0", "--epochs: '0' is not a whole number from 1"),
        ("digits --steps 0", "--steps: '0' is not a whole number from 1"),
        ("digits --global-batch 1.5", "--global-batch: '1.5' is not a whole number from 1"),
        ("digits --seed x", "--seed: 'x' is not a whole number from 0"),
        ("digits --learning-rate nan", "--learning-rate: 'nan' is not a number above 0"),
        ("digits --learning-rate fast", "--learning-rate: 'fast' is not a number above 0"),
        ("digits --colour red", "unrecognized arguments: --colour red"),
        ("digits --epoch 3", "unrecognized arguments: --epoch 3"),
        ("digits --patience 0:min:loss", "'0:min:loss' is not like '3:min:val_loss'"),
        ("digits --patience 3:loss", "--patience: 'loss' is not like 'min:loss'"),
        ("digits --strategy best", "--strategy: invalid choice: 'best'"),
    ],
)
def test_a_bad_command_line_is_told_in_one_line(arguments: str, told: str) -> None:
    with pytest.raises(FlagError) as caught:
        parse(arguments.split())
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
