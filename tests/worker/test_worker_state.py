"""What a state lists and notes, in one process; what differs between replicas is in test_worker_resume.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.tensorflow
tf = pytest.importorskip("tensorflow")


def state(**roots: Any) -> Any:
    from worker.checkpoint.state import State

    return State(tf.distribute.get_strategy(), **roots)


def module(*values: Any) -> Any:
    root = tf.Module()
    root.held = [tf.Variable(value) for value in values]
    return root


def change(variable: Any) -> dict[str, Callable[[], object]]:
    """Ways in which a step changes a variable, in TensorFlow's own kernels."""
    like, two, handle = tf.ones_like(variable), tf.ones((2, 4)), variable.handle
    moments = [tf.Variable(like) for _ in range(2)]
    m, v = (moment.handle for moment in moments)
    rates = {"beta1_power": 0.9, "beta2_power": 0.9, "lr": 0.1, "beta1": 0.9, "beta2": 0.9, "epsilon": 1e-7}
    descend, adam = tf.raw_ops.ResourceApplyGradientDescent, tf.raw_ops.ResourceApplyAdam
    sparse = tf.raw_ops.ResourceSparseApplyAdagradV2
    return {
        "assign": lambda: variable.assign(variable + 1),
        "assign_add": lambda: variable.assign_add(like),
        "in a function": tf.function(lambda: variable.assign_sub(like)),
        "compiled": tf.function(lambda: variable.assign_add(like), jit_compile=True),
        "gradient descent": lambda: descend(var=handle, alpha=1.0, delta=like),
        "Adam": lambda: adam(var=handle, m=m, v=v, grad=like, **rates),
        "rows": lambda: variable.scatter_add(tf.IndexedSlices(two, [1, 2])),
        "rows again": lambda: variable.scatter_nd_update([[1], [2]], two * 9),
        "rows by Adagrad": lambda: sparse(var=handle, accum=m, lr=0.1, epsilon=1e-7, grad=two, indices=[1, 2]),
        "kept": lambda: moments,
    }


def test_what_was_noted_stays_whatever_the_next_step_does() -> None:
    root = module(tf.random.normal((1000, 4), seed=1))
    (variable,) = root.held
    for name, make in change(variable).items():
        before = variable.numpy().copy()
        (noted,) = state(model=root).snapshot({}).values()
        make()
        assert (noted.numpy() == before).all(), name
        assert name == "kept" or (variable.numpy() != before).any(), name


def test_each_variable_is_listed_once_and_by_the_first_who_has_it() -> None:
    shared = module(1.0, 2.0)
    other = module(3.0)
    other.seen = shared
    listed = state(model=shared, optimizer=other).slots
    assert [slot.path for slot in listed] == [
        ("model", "held", "0"),
        ("model", "held", "1"),
        ("optimizer", "held", "0"),
    ]


def test_the_state_of_a_dropout_is_among_them() -> None:
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.5)])
    assert [slot.name.rpartition("/")[2] for slot in state(model=model).slots] == ["seed_generator_state"]


def test_every_kind_of_value_is_received_as_it_is() -> None:
    import numpy as np

    values = [np.float16(0.1), np.nan, [1 + 2j], [[True], [False]], np.uint8(255), np.int64(-(2**62)), np.zeros((0, 3))]
    root, empty = module(*values, tf.cast(0.1, tf.bfloat16)), module()
    given = {slot.key: np.asarray(slot.variable.numpy()) for slot in state(model=root, optimizer=empty).slots}
    for variable in root.held:
        variable.assign(tf.zeros_like(variable))
    state(model=root).receive(given)
    for slot in state(model=root).slots:
        assert slot.variable.numpy().tobytes() == given[slot.key].tobytes()


def test_names_with_dots_and_slashes_are_those_of_tensorflow() -> None:
    root = tf.Module()
    root.held = {"a.b/c": tf.Variable(1.0)}
    (slot,) = state(model=root).slots
    prefix = tf.train.Checkpoint(model=root).write("ram://names/state")
    reader = tf.compat.v1.train.NewCheckpointReader(prefix)
    assert reader.get_tensor(slot.key) == 1
