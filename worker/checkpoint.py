"""Checkpoints that the chief alone writes and reads; the other workers have its state from it over the wire.

Why nobody else needs the files: at the start of a run all workers take the chief's variables in one collective. So no two
workers can restore different checkpoints, whatever is on their disks, and the directory need not be shared.

Why the chief can write alone: the variables of a Keras 3 model without BatchNormalization are mirrored, equal on every
replica at every step, and a save reads the local copy. Variables that are averaged when they are read (tf_keras's
BatchNormalization) would make the save a collective, and the chief would wait in it for workers who never come.

Why a killed run leaves a usable checkpoint: CheckpointManager writes a checkpoint under names of its own, and only then
renames a new ``checkpoint`` file, the one that says which is the latest, over the old.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from worker.context import report

if TYPE_CHECKING:
    import keras


class CheckpointError(Exception):
    """Checkpoints cannot be written or read; the message is one line.

    ``exit_status`` is 2 where another ``--checkpoint-dir`` or other settings are the cure, else 1.
    """

    def __init__(self, message: str, exit_status: int = 1) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class Checkpoints:
    """The checkpoints of one learner in one directory, which is made when it is not there. The last three are kept."""

    def __init__(
        self,
        directory: str,
        recipe: str,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        *,
        is_chief: bool,
    ) -> None:
        """``recipe`` is the settings that a checkpoint is trained on with; it is stored, and must be equal to go on."""
        self._directory = directory
        self._recipe = recipe
        self._strategy = strategy
        self._model = model
        self._optimizer = optimizer
        self._manager = self._manage() if is_chief else None

    def resume(self) -> int:
        """Bring all workers to the chief's latest checkpoint and give its step; 0 when there is none.

        A collective: every worker calls it, before its first step. An empty directory gets the untrained state at once,
        so that one that cannot be written to is found out before any training, and by all workers.

        Raises:
            CheckpointError: on the chief with the reason, on the others with the word that the chief has failed.
        """
        error = None
        step = 0
        if self._manager:
            try:
                step = self._open(self._manager)
            except CheckpointError as failure:
                error, step = failure, -failure.exit_status
        agreed = int(self._from_chief(tf.constant(step, tf.int64)))
        if agreed < 0:
            raise error or CheckpointError("the chief could not open its checkpoints; its own line says why", -agreed)
        if agreed > 0:
            for variable in (*self._model.variables, *self._optimizer.variables):
                variable.assign(self._from_chief(variable.value))
        return agreed

    def save(self) -> None:
        """Write a checkpoint of the present step; anywhere but on the chief, do nothing.

        Raises:
            CheckpointError: the directory cannot be written to, or the disk is full.
        """
        if not self._manager:
            return
        step = self._step()
        try:
            path = self._manager.save(checkpoint_number=step)
        except tf.errors.OpError as error:
            raise CheckpointError(f"cannot write a checkpoint to {self._directory}: {_reason(error)}") from error
        report("checkpoint", path=path, step=step)

    def _manage(self) -> tf.train.CheckpointManager:
        # Outside of the strategy's scope, in which the chief would wait for all others to create each variable with it.
        return tf.train.CheckpointManager(
            tf.train.Checkpoint(model=self._model, optimizer=self._optimizer, recipe=tf.Variable(self._recipe)),
            self._directory,
            max_to_keep=3,
        )

    def _open(self, manager: tf.train.CheckpointManager) -> int:
        if manager.latest_checkpoint is None:
            self.save()
            return 0
        try:
            self._refuse_other_recipe(manager.latest_checkpoint)
            manager.checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched()
        except (tf.errors.OpError, AssertionError, ValueError) as error:
            raise CheckpointError(
                f"cannot read checkpoint {manager.latest_checkpoint}: {_reason(error)}; move it away, "
                "or name another directory with --checkpoint-dir",
                exit_status=2,
            ) from error
        return self._step()

    def _step(self) -> int:
        # Keras 3.15 cannot turn a mirrored variable into an int itself.
        return int(tf.convert_to_tensor(self._optimizer.iterations.value))

    def _refuse_other_recipe(self, path: str) -> None:
        stored = tf.Variable("")
        tf.train.Checkpoint(recipe=stored).read(path).expect_partial()
        recipe = stored.numpy().decode()
        if recipe != self._recipe:
            raise CheckpointError(
                f"{path} was trained as [{recipe or 'something else'}], not as [{self._recipe}]; "
                "repeat those flags, or name another directory with --checkpoint-dir",
                exit_status=2,
            )

    def _from_chief(self, value: tf.Tensor) -> tf.Tensor:
        """Give the chief's value to all: a sum in which every replica but the chief's first, number 0, adds nothing."""
        value = tf.convert_to_tensor(value)
        values = self._strategy.experimental_distribute_values_from_function(
            lambda replica: value if replica.replica_id_in_sync_group == 0 else tf.zeros_like(value)
        )
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)


def _reason(error: Exception) -> str:
    """The first line of what TensorFlow says, without the trace of nodes that follows."""
    return str(getattr(error, "message", error)).partition("\n")[0]
