from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from worker import boot

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.worker.conftest import Processes

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tensorflow

START = str(Path(boot.__file__).with_name("start.py"))
CONVERTED = """
import inspect, os, signal, sys
import tensorflow as tf

@tf.function
def count(number):
    total = tf.constant(0)
    for one in tf.range(number):
        total += one
    return total

print("counted", int(count(tf.constant(4))), flush=True)
generated = next(module for name, module in sys.modules.items() if name.startswith("__autograph_generated_file"))
print("found", "tf__count" in inspect.getsource(generated), flush=True)

@tf.function
def wrong(number):
    for _ in tf.range(number):
        tf.ones([2]) + tf.ones([3])

try:
    wrong(tf.constant(4))
except ValueError as error:
    print("told", "tf.ones([2]) + tf.ones([3])" in str(error), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_no_generated_file(
    processes: Processes, written: Callable[[str], str], tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {"TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": ""}
    ended = processes.run(START, written(CONVERTED), environment=environment)
    assert ended.status == -9
    assert ended.out.splitlines() == ["counted 6", "found True", "told True"], ended.err
    assert list(scratch.iterdir()) == []
