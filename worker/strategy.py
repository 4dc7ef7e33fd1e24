"""Which tf.distribute strategy a process trains under, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from worker.task import TaskError

if TYPE_CHECKING:
    import tensorflow as tf

Name = Literal["default", "MirroredStrategy", "MultiWorkerMirroredStrategy", "TPUStrategy"]
Wanted = Literal["auto", "default", "mirrored", "multiworker", "tpu"]
Communication = Literal["auto", "ring", "nccl"]

WANTED = get_args(Wanted)
COMMUNICATIONS = get_args(Communication)


@dataclass(frozen=True)
class Choice:
    """A strategy by name, with the reason as text for people."""

    name: Name
    reason: str

    def __str__(self) -> str:
        return f"{self.name}, for {self.reason}"


def choose(members: int, devices: int, wanted: Wanted = "auto", noun: str = "GPU") -> Choice:
    """Choose for a cluster of ``members`` training processes, of which this one may use ``devices`` GPUs.

    A cluster of one starts no server and no collective: MultiWorkerMirroredStrategy would only make it slower.

    Raises:
        TaskError: what is wanted does not fit the cluster.
    """
    if members > 1:
        if wanted in {"default", "mirrored"}:
            raise TaskError(f"--strategy {wanted} trains in one process, and this is a cluster of {members}")
        here = f"a cluster of {members} with {_devices(devices, noun)} each"
    else:
        here = f"one process with {_devices(devices, noun)}"
    match wanted:
        case "tpu":
            return Choice("TPUStrategy", "it was asked for")
        case "multiworker":
            return Choice("MultiWorkerMirroredStrategy", here)
        case "mirrored":
            return Choice("MirroredStrategy", here)
        case "default":
            return Choice("default", here)
    if members > 1:
        return Choice("MultiWorkerMirroredStrategy", here)
    return Choice("MirroredStrategy" if devices > 1 else "default", here)


def build(choice: Choice, communication: Communication = "auto", *, virtual: bool = False) -> tf.distribute.Strategy:
    """Build it. Under MultiWorkerMirroredStrategy this waits until every member of the cluster is there.

    Args:
        communication: who carries the sums between workers; auto is NCCL between GPUs, else a ring over gRPC.
        virtual: MirroredStrategy takes all CPU devices, which somebody has made for the purpose.

    Raises:
        TaskError: it cannot be built here.
    """
    import tensorflow as tf

    match choice.name:
        case "MultiWorkerMirroredStrategy":
            carrier = tf.distribute.experimental.CommunicationImplementation[communication.upper()]
            options = tf.distribute.experimental.CommunicationOptions(implementation=carrier)
            return _build_multi_worker(options)
        case "MirroredStrategy":
            return tf.distribute.MirroredStrategy(tf.config.list_logical_devices("CPU") if virtual else None)
        case "TPUStrategy":
            return _build_tpu()
        case "default":
            return tf.distribute.get_strategy()


def _build_multi_worker(options: tf.distribute.experimental.CommunicationOptions) -> tf.distribute.Strategy:
    import tensorflow as tf

    try:
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        # TensorFlow starts its runtime with the first operation, and a cluster is part of what it starts (2.21).
        told = "TensorFlow was used before the cluster was formed: the task's file does so while it is imported"
        raise TaskError(told, "move that into the functions of the task") from None


def make_virtual_devices(count: int) -> None:
    """Cut this process's CPU into that many devices, so that several replicas can be tried without GPUs.

    To be called before anything else is done with TensorFlow.
    """
    import tensorflow as tf

    pieces = [tf.config.LogicalDeviceConfiguration()] * count
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], pieces)


def _build_tpu() -> tf.distribute.Strategy:
    import tensorflow as tf

    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, OSError, tf.errors.OpError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TaskError(f"there is no TPU to be found: {reason}", "leave --strategy tpu out") from None
    return tf.distribute.TPUStrategy(resolver)


def _devices(count: int, noun: str) -> str:
    return {0: f"no {noun}", 1: f"1 {noun}"}.get(count, f"{count} {noun}s")
