"""Keras's stock callbacks on several workers: the chief alone touches the disk, and every worker decides the same.

The logs that callbacks decide on are equal on all workers (``trainer.py`` sees to it), so the stock code can decide. What is
changed is what it does then: a worker that follows the chief writes nothing, and has from the chief what that has read.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from keras.src.callbacks import backup_and_restore, callback_list, csv_logger, model_checkpoint, tensorboard
from keras.src.layers import BatchNormalization
from keras.src.utils import file_utils

from ..collective import average, from_chief, spans_workers
from . import preemption
from .follow import follows, on_chief, strategy_of
from .replacement import Replacement

if TYPE_CHECKING:
    from collections.abc import Iterator


def replacements() -> Iterator[Replacement]:
    hook = ("self", "logs")
    batch_end = ("self", "batch", "logs")
    epoch_end = ("self", "epoch", "logs")
    yield Replacement(callback_list.CallbackList, "on_epoch_end", epoch_end, _average_first)
    yield Replacement(callback_list.CallbackList, "on_test_begin", hook, _average_first)
    yield Replacement(model_checkpoint.ModelCheckpoint, "_save_model", ("self", "epoch", "batch", "logs"), _decide_only)
    yield Replacement(backup_and_restore.BackupAndRestore, "_save_model", ("self",), _back_up)
    yield Replacement(backup_and_restore.BackupAndRestore, "on_train_begin", hook, _restore)
    yield Replacement(backup_and_restore.BackupAndRestore, "on_train_batch_end", batch_end, _stop_after_batch)
    yield Replacement(backup_and_restore.BackupAndRestore, "on_train_end", hook, _stop_before_removal)
    yield Replacement(csv_logger.CSVLogger, "on_train_begin", hook, on_chief)
    yield Replacement(csv_logger.CSVLogger, "on_epoch_end", epoch_end, on_chief)
    yield Replacement(csv_logger.CSVLogger, "on_train_end", hook, on_chief)
    yield Replacement(tensorboard.TensorBoard, "set_model", ("self", "model"), _without_files)


def _average_first(stock: Any) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> None:
        _average(self.model)
        stock(self, *args, **kwargs)

    return method


def _average(model: Any) -> None:
    """Have all workers agree on what each has a value of its own of, before anybody reads or stores it.

    Those are BatchNormalization's statistics, which Keras 3 leaves to each replica and tf_keras averages when they are read,
    and the gradients that an optimizer has summed up so far. Both are sums of the replicas' parts, so that a mean taken now
    changes nothing of what comes out later.
    """
    strategy = getattr(model, "distribute_strategy", None)
    if not spans_workers(strategy):
        return
    normalizations = (one for one in model._flatten_layers() if isinstance(one, BatchNormalization))
    statistics = [weight for one in normalizations if one.built for weight in one._non_trainable_variables]
    # LossScaleOptimizer has another one inside, which does the work.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    sums = getattr(optimizer, "_accumulated_gradients", [])
    average(strategy, [variable.value for variable in (*statistics, *sums) if variable is not None])


def _decide_only(stock: Any) -> Any:
    """ModelCheckpoint: to know the best is every worker's, to store it is the chief's."""

    def save_model(self: Any, epoch: int, batch: int | None, logs: Any) -> None:
        if batch is not None:
            _average(self.model)
        if follows(strategy_of(self)):
            self.verbose = 0  # it would say that it saves
            self._should_save_model(epoch, batch, logs, self._get_file_path(epoch, batch, logs))
        else:
            stock(self, epoch, batch, logs)

    return save_model


def _back_up(stock: Any) -> Any:
    def save_model(self: Any) -> None:
        if self.save_freq != "epoch":
            _average(self.model)
        fit = preemption.current()
        if not follows(strategy_of(self)):
            with fit.writing() if fit else nullcontext():
                stock(self)

    return save_model


def _restore(stock: Any) -> Any:
    """BackupAndRestore: the chief reads, and all go on from what it has read, wherever their disks are."""

    def on_train_begin(self: Any, logs: Any = None) -> None:
        strategy = strategy_of(self)
        if not spans_workers(strategy):
            stock(self, logs)
            return
        found = False
        if not follows(strategy):
            found = file_utils.exists(self.backup_dir)
            stock(self, logs)
        # A chief that cannot read what it found has ended by now, and is waited for in vain.
        if restored := bool(from_chief(strategy, found)):
            _adopt(strategy, self.model)
        batches = self.save_freq != "epoch"
        preemption.begin(self.model, saves_batches=batches, save=self._save_model, restored=restored)

    return on_train_begin


def _stop_after_batch(stock: Any) -> Any:
    def on_train_batch_end(self: Any, batch: int, logs: Any = None) -> None:
        stock(self, batch, logs)
        if fit := preemption.current():
            fit.batch_done()

    return on_train_batch_end


def _stop_before_removal(stock: Any) -> Any:
    def on_train_end(self: Any, logs: Any = None) -> None:
        if fit := preemption.current():
            fit.all_done()
        on_chief(stock)(self, logs)

    return on_train_end


def _adopt(strategy: Any, model: Any) -> None:
    """Take over the chief's epoch and variables."""
    model._initial_epoch = int(from_chief(strategy, model._initial_epoch or 0)) or None
    for variable in (*model.variables, *getattr(model.optimizer, "variables", ())):
        variable.assign(from_chief(strategy, variable.value))


def _without_files(stock: Any) -> Any:
    """TensorBoard: a worker that follows goes through the same motions, and its writers write nothing."""

    def set_model(self: Any, model: Any) -> None:
        following = follows(getattr(model, "distribute_strategy", None))
        if following:
            self.write_graph = self._should_trace = False
            self.embeddings_freq = 0
        stock(self, model)
        if following:
            self._writers = dict.fromkeys(("train", "val"), self.summary.create_noop_writer())

    return set_model
