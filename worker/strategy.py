"""Which tf.distribute strategy a process trains under, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Choice:
    """A strategy by name, with the reason as text for people."""

    name: Literal["MultiWorkerMirroredStrategy", "MirroredStrategy", "default"]
    reason: str

    def __str__(self) -> str:
        return f"{self.name}, for {self.reason}"


def choose(members: int, gpus: int) -> Choice:
    """Choose for a cluster of ``members`` training processes, of which this one sees ``gpus`` GPUs.

    A cluster of one starts no server and no collective: MultiWorkerMirroredStrategy would only make it slower.
    """
    if members > 1:
        return Choice("MultiWorkerMirroredStrategy", f"a cluster of {members} with {_devices(gpus)} each")
    if gpus > 1:
        return Choice("MirroredStrategy", f"one process with {_devices(gpus)}")
    return Choice("default", f"one process with {_devices(gpus)}")


def build(choice: Choice) -> tf.distribute.Strategy:
    """Build it. Under MultiWorkerMirroredStrategy this waits until every member of the cluster is there."""
    import tensorflow as tf

    match choice.name:
        case "MultiWorkerMirroredStrategy":
            return tf.distribute.MultiWorkerMirroredStrategy()
        case "MirroredStrategy":
            return tf.distribute.MirroredStrategy()
        case "default":
            return tf.distribute.get_strategy()


def _devices(gpus: int) -> str:
    match gpus:
        case 0:
            return "no GPU"
        case 1:
            return "1 GPU"
        case _:
            return f"{gpus} GPUs"
