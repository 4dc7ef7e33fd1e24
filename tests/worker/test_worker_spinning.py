from __future__ import annotations

import os
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
# Built as a program that knows nothing of it builds one, with settings of its own.
ASKED_FOR = """
import os, sys
os.sched_setaffinity(0, map(int, sys.argv[1].split()))
import tensorflow as tf
tf.config.threading.set_inter_op_parallelism_threads(3)
from tensorflow.python.eager import context
tf.constant(1)
config = context.context().config
print(config.experimental.disable_thread_spinning, config.inter_op_parallelism_threads, flush=True)
"""


@pytest.mark.parametrize("count", [1, 2])
def test_threads_spin_only_where_another_core_may_bring_what_they_look_for(
    processes: Processes, written: Callable[[str], str], count: int
) -> None:
    cores = sorted(os.sched_getaffinity(0))[:count]
    if len(cores) < count:
        pytest.skip("needs two cores")
    ended = processes.run(START, written(ASKED_FOR), " ".join(map(str, cores)))
    assert ended.out.split() == [str(count == 1), "3"], ended.err
