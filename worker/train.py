"""The custom training loop: from a task to a trained model, on however many workers there are.

It takes values, never flags, and asks who is the chief only where something is printed or written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from worker import board, pictures
from worker.agreement import check, check_labels, check_sizes
from worker.checkpoint.checkpoints import Checkpoints
from worker.checkpoint.rhythm import EPOCHLY
from worker.checkpoint.saving import CheckpointError, Saving
from worker.checkpoint.state import State
from worker.collective import peers
from worker.context import report
from worker.data import Arrays, Schedule, Share
from worker.feed import feed
from worker.host import one_at_a_time
from worker.learner import Learner
from worker.named import make_optimizer
from worker.pace import Pace
from worker.preemption import Preemption
from worker.progress import Progress, short
from worker.score import score
from worker.strategy import build, choose, make_virtual_devices
from worker.task import Result, TaskError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker.checkpoint.position import Position
    from worker.checkpoint.saving import Outcome
    from worker.context import Context
    from worker.data import Source
    from worker.learner import Steps
    from worker.settings import Settings
    from worker.task import Data, Task

    Say = Callable[[str, str], None]


class NotANumberError(Exception):
    """A loss or its gradient became infinite or NaN; every worker learns it in the same step. The message is one line."""

    exit_status = 1


def train(task: Task, settings: Settings, context: Context) -> Mapping[str, float]:
    """Train, or train on from the last checkpoint; export; test. Gives the last measures, those of the test included.

    Every process of the cluster calls this with equal settings. The chief prints what happens and writes what is written.

    Raises:
        TaskError: on every worker alike, if the training cannot be done as it is asked for.
        CheckpointError: the training cannot begin with the checkpoints there are, or its end could not be saved.
        NotANumberError: on every worker alike.
        Preempted: on every worker alike, when SIGTERM has come to one of them.
    """
    say = _print if context.is_chief else _keep_quiet
    # First of all: what a task does to get its data may well be TensorFlow's, and a cluster is to be formed before that.
    strategy = _strategy(settings, context, say)
    if settings.tensorboard:
        board.check()
    run = _prepare(task, settings, context, strategy, say)
    saving = Saving(
        settings.checkpoint_dir,
        f"{task.name} {settings.recipe}",
        settings.save_every,
        settings.keep,
        settings.keep_best,
        settings.fresh,
        settings.run,
    )
    told = partial(say, "checkpoints")
    with Checkpoints(saving, run.state, is_chief=context.is_chief, say=told) as checkpoints:
        shown = board.Board(settings.checkpoint_dir) if settings.tensorboard and context.is_chief else None
        start = checkpoints.resume()
        with Preemption(peers(strategy), start.step, say, checkpoints.wait) as preemption:
            position = _learn(run, start, checkpoints, preemption, shown, say)
            outcome = checkpoints.finish(position)
            if preemption.agreed:
                preemption.stop(position.step, saved=checkpoints.settled(outcome))
            exported = checkpoints.export(run.learner.model, position.step, saved_model=settings.export)
            preemption.release(position.step, saved=checkpoints.settled(outcome))
            tested = _test(run, preemption, say)
    measures = {**position.measured, **tested}
    if tested:
        _record(run, position, tested, shown)
    if context.is_chief:
        _show(task, settings, run, position, measures, say)
    _tell(outcome, exported, saving, say)
    return measures


@dataclass(frozen=True)
class _Run:
    """What a training consists of, once it is all there."""

    settings: Settings
    data: Data
    learner: Learner
    state: State
    schedule: Schedule
    share: Share


def _data(task: Task, settings: Settings) -> Data:
    if settings.data is not None:
        if task.data_from is None:
            raise TaskError(f"{task.name} has its own data: leave --data out")
        return task.data_from(settings.data)
    if task.prepare is not None:
        with one_at_a_time(task.name):
            task.prepare()
    return task.data()


def _strategy(settings: Settings, context: Context, say: Say) -> tf.distribute.Strategy:
    if settings.virtual_devices:
        make_virtual_devices(settings.virtual_devices)
        choice = choose(context.size, settings.virtual_devices, settings.strategy, "virtual device")
    else:
        choice = choose(context.size, len(tf.config.list_physical_devices("GPU")), settings.strategy)
    say("strategy", str(choice))
    return build(choice, settings.communication, virtual=bool(settings.virtual_devices))


def _prepare(task: Task, settings: Settings, context: Context, strategy: tf.distribute.Strategy, say: Say) -> _Run:
    data = _data(task, settings)
    held_out = "".join(
        f", {len(part):,} to {verb}"
        for part, verb in ((data.validation, "measure on"), (data.test, "be tested on"))
        if part is not None
    )
    say("data", f"{len(data.train):,} {task.noun} to learn from{held_out}")
    replicas = strategy.num_replicas_in_sync
    share = Share(context.rank, context.size, replicas // context.size, replicas)
    check_sizes(data.train, settings.global_batch, share, task.noun)
    learner = Learner(
        strategy,
        task,
        partial(make_optimizer, settings.optimizer, settings.learning_rate),
        seed=settings.seed,
        clip_norm=settings.clip_norm,
        micro_batches=settings.micro_batches,
        precision=settings.precision,
    )
    _check_outputs(learner, data.train)
    _check_measures(settings, learner.metrics.names, validated=data.validation is not None)
    schedule = Schedule(len(data.train), settings.global_batch, settings.seed, settings.micro_batches)
    roots: dict[str, Any] = {"model": learner.model, "optimizer": learner.optimizer}
    if learner.scale is not None:
        roots["scale"] = learner.scale
    return _Run(settings, data, learner, State(strategy, **roots), schedule, share)


def _check_outputs(learner: Learner, source: Source) -> None:
    shape = getattr(learner.model, "output_shape", None)
    if isinstance(source, Arrays) and learner.takes_classes and isinstance(shape, tuple) and isinstance(shape[-1], int):
        check_labels(source.labels, shape[-1])


def _check_measures(settings: Settings, names: tuple[str, ...], *, validated: bool) -> None:
    """What a training waits for must be measured: otherwise it would never stop, or never be the best."""
    known = [*names, *(f"val_{name}" for name in names if validated)]
    for flag, wanted in (("--patience", settings.patience), ("--keep-best", settings.keep_best)):
        if wanted is not None and wanted.metric not in known:
            hint = nearest(wanted.metric, known) or f"there is {', '.join(known)}"
            raise TaskError(f"{flag}: nothing is measured as {wanted.metric}", hint)


def _learn(
    run: _Run, position: Position, checkpoints: Checkpoints, preemption: Preemption, shown: board.Board | None, say: Say
) -> Position:
    """Make all steps that are left, unless the workers agree to stop before, and give the position after them."""
    settings, schedule = run.settings, run.schedule
    steps = settings.epochs * schedule.steps_per_epoch
    steps = steps if settings.steps is None else min(steps, settings.steps)
    say("checkpoints", f"{settings.checkpoint_dir}{_described(position.step, steps)}")
    if position.step >= steps and not position.unmeasured:
        return position
    if warning := check(run.learner.strategy, run.share, run.data.train, schedule, position.step):
        say("WARNING", warning)
    iterator = iter(feed(run.learner.strategy, run.data.train, schedule, first_step=position.step))
    progress = Progress(say, settings.epochs, steps, settings.global_batch)
    pace = Pace(run.state, settings.steps_per_call, is_chief=run.share.worker == 0)
    while position.unmeasured or (position.step < steps and not _is_over(settings, position)):
        # One that was stopped before it had measured an epoch does that first.
        if not position.unmeasured:
            first = position.step
            many = min(pace.steps, steps - first, schedule.steps_per_epoch - position.batch)
            position, loss = _stepped(run, position, iterator, settings.save_every.steps_left(first, many), preemption)
            pace.made(position.step - first)
            progress.stepped((position.step - 1) // schedule.steps_per_epoch, position.step, loss)
        if position.unmeasured and not preemption.agreed:
            position = _measured(run, position, pace.steps, preemption)
            if not position.unmeasured:
                progress.epoch_done(position.epoch - 1, position.step, position.measured)
                _record(run, position, position.measured, shown)
        if preemption.agreed:
            return position
        checkpoints.after_step(position)
    if position.step < steps and settings.patience:
        waited = f"{settings.patience.metric} has not become better for {settings.patience.epochs} epochs"
        say("stopped", f"after epoch {position.epoch}: {waited}")
    return position


def _stepped(run: _Run, start: Position, iterator: Any, many: int, preemption: Preemption) -> tuple[Position, float]:  # noqa: ANN401 - over a distributed dataset
    """Make some steps of one epoch. Gives the position after them, and the last one's loss."""
    made = run.learner.learn(iterator, many, asked=preemption.asked)
    preemption.hold()
    _refuse_bad(made, start.step, run.share)
    if made.stop:
        preemption.agree()
    return _advanced(run, start, made), float(made.losses[-1])


def _is_over(settings: Settings, position: Position) -> bool:
    """Whether the epochs so far are the last ones, however many there were to be."""
    return settings.patience is not None and settings.patience.is_over(position.history)


def _record(run: _Run, position: Position, measures: Mapping[str, float], shown: board.Board | None) -> None:
    """Tell the launcher, and TensorBoard, what was measured: once for all workers."""
    if run.share.worker == 0:
        report("metrics", **{**measures, "epoch": position.epoch, "step": position.step})
    if shown is not None:
        shown.write(position.step, measures)


def _advanced(run: _Run, start: Position, made: Steps) -> Position:
    """The position after some steps of one epoch, its own measures not taken yet."""
    step = start.step + len(made.losses)
    epoch, batch = divmod(step, run.schedule.steps_per_epoch)
    sizes = [len(run.schedule.numbers(number)) for number in range(start.step, step)]
    added = [sum(float(loss) * size for loss, size in zip(made.losses, sizes, strict=True)), *made.sums.tolist()]
    partial_sums = tuple(a + b for a, b in zip(start.partial or [0.0] * len(added), added, strict=True))
    return replace(start, step=step, epoch=epoch, batch=batch, seed=run.settings.seed, partial=partial_sums)


def _measured(run: _Run, position: Position, many: int, preemption: Preemption) -> Position:
    """The position at the end of an epoch, with its measures in the history; unchanged if the workers agreed to stop."""
    total, *sums = position.partial
    measures = {
        **run.learner.metrics.results(np.array(sums)),
        "loss": total / run.schedule.count,
        "step": position.step,
    }
    if run.data.validation is not None:
        validated = score(run.learner, run.data.validation, run.settings.global_batch, many, preemption)
        if not validated:
            return position
        measures |= {f"val_{name}": value for name, value in validated.items()}
    return replace(position, history=(*position.history, measures), partial=())


def _test(run: _Run, preemption: Preemption, say: Say) -> dict[str, float]:
    if run.data.test is None:
        return {}
    measures = score(run.learner, run.data.test, run.settings.global_batch, len(run.data.test), preemption)
    count = len(run.data.test)
    plain = {name: value for name, value in measures.items() if "accuracy" not in name}
    say("test", "   ".join(f"{short(name)} {value:.4f}" for name, value in plain.items()))
    for name in measures.keys() - plain:
        say(f"test {short(name)}", f"{measures[name]:.1%} ({round(measures[name] * count):,} of {count:,})")
    return {f"test_{name}": value for name, value in measures.items()}


def _show(
    task: Task, settings: Settings, run: _Run, position: Position, measures: Mapping[str, float], say: Say
) -> None:
    """Pictures, and the task's own last words. On the chief alone: nothing in here is a collective."""
    if position.history and pictures.possible():
        path = f"{settings.checkpoint_dir}/{pictures.HISTORY}"
        pictures.history(position.history, path)
        say("picture", path)
    if task.finish is not None:
        task.finish(Result(run.learner.model, measures, settings.checkpoint_dir))


def _refuse_bad(made: Steps, first_step: int, share: Share) -> None:
    if made.bad_step >= 0:
        worker = made.bad_replica // share.here
        raise NotANumberError(
            f"the loss of step {first_step + made.bad_step + 1}, or its gradient, is no finite number, and worker {worker} "
            "saw it first; "
            "the variables are those of the step before (a smaller --learning-rate, or --clip-norm 1, may help)"
        )


def _tell(outcome: Outcome, exported: str, saving: Saving, say: Say) -> None:
    """Say what became of the checkpoints, if there is anything to say.

    Raises:
        CheckpointError: the end of the training is not on the disk.
    """
    # Whoever asked for a rhythm is told that it was not kept; epochs of milliseconds are nobody's wish.
    if outcome.skipped > outcome.saved and saving.every != EPOCHLY:
        say("checkpoints", f"{outcome.skipped:,} were left out, as the one before was still being written")
    if outcome.failed:
        say("checkpoints", f"{outcome.failed:,} COULD NOT BE SAVED, {outcome.saved:,} were; {outcome.reason}")
    if not outcome.complete:
        newest = (
            "there is no checkpoint" if outcome.step is None else f"the newest checkpoint is of step {outcome.step}"
        )
        raise CheckpointError(f"the end of the training is not saved to {saving.directory}: {outcome.reason}; {newest}")
    if exported:
        raise CheckpointError(f"cannot export to {saving.directory}: {exported}; the last checkpoint has it all")


def _described(start: int, steps: int) -> str:
    if start == 0:
        return ""
    if start < steps:
        return f", resumed from step {start}"
    return f", already trained to step {start}; more --epochs train on, --fresh starts over"


def _print(label: str, text: str) -> None:
    # Flushed: behind a pipe, lines would otherwise arrive all at once at the end.
    print(f"{label:<15}{text}", flush=True)


def _keep_quiet(label: str, text: str) -> None:
    """What a worker other than the chief prints."""
