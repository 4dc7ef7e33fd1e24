from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.tensorflow
tf = pytest.importorskip("tensorflow")


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "{{function_node __wrapped__SaveV2_/job:worker}} /a b/.writing-ckpt-69/t.2011; No space left on device [Op:SaveV2]",
            "No space left on device",
        ),
        ("/kept/.writing-ckpt-3; No such file or directory\n[[{{node SaveV2}}]]", "No such file or directory"),
        (
            "TensorBundle at /kept/state: Checksum does not match",
            "TensorBundle at /kept/state: Checksum does not match",
        ),
        ("busy; try again", "busy; try again"),
    ],
)
def test_a_reason_is_one_line_and_the_same_for_every_checkpoint(message: str, told: str) -> None:
    from worker.checkpoint.disk import reason

    assert reason(tf.errors.ResourceExhaustedError(None, None, message)) == told


def test_an_errno_is_told_in_its_own_words() -> None:
    from worker.checkpoint.disk import reason

    assert reason(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/kept/lock")) == "No space left on device"


def test_a_small_file_is_replaced_whole(tmp_path: Path) -> None:
    from worker.checkpoint.disk import Disk

    disk = Disk(f"file://{tmp_path}")
    assert disk.local
    for text in ("first\n", "second\n"):
        disk.put("checkpoint", text)
        assert (tmp_path / "checkpoint").read_text() == text
    assert disk.list() == ["checkpoint"]
    assert disk.size("checkpoint") == 7


def test_what_is_not_there_is_cleared_already(tmp_path: Path) -> None:
    from worker.checkpoint.disk import Disk

    Disk(str(tmp_path)).clear("missing")
    assert list(tmp_path.iterdir()) == []
