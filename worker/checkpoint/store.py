"""A directory of checkpoints: what is in it, and how it gets there whole. Only the chief has one.

    checkpoint              TensorFlow's own file, which names the latest and all that are kept; renamed into place last
    ckpt-120/               one checkpoint, of step 120
        state.index         a normal TensorFlow checkpoint: tf.train.load_checkpoint("DIR/ckpt-120/state")
        state.data-00000-of-00001
        manifest.json       sizes of these files, checksum of the index; step, measures
    damaged-ckpt-130/       one that could not be read, set aside
    before-20261124T2031Z/  all that was there when a run started over
    .starting-over          names that folder while it is being filled
    export/                 the trained model
    lock                    whose directory it is, while somebody trains

On a local disk a checkpoint is written under another name, synced, and renamed: so it is there whole, or not at all, even
after a power loss. Elsewhere (gs://, ...) there is no such renaming: there its manifest is written last, and a checkpoint
without one counts as damaged.

TensorFlow's index has a CRC-32C of every value, which is compared whenever one is read (2.21). So a checksum of the index
is all that is missing for the whole; to read every file again for one of our own would take as long as writing them.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from worker.checkpoint.contents import read
from worker.checkpoint.disk import Disk, reason
from worker.checkpoint.lock import Lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

STATE = "state"
INDEX = "state.index"
MANIFEST = "manifest.json"
LATEST = "checkpoint"
EXPORT = "export"
# Names the folder into which everything is being moved.
_STARTING_OVER = ".starting-over"
_BEGUN_BY = ".begun-by"
_NAME = re.compile(r"ckpt-(\d+)")
# What a killed run may leave behind.
_HALF_WRITTEN = re.compile(rf"\.writing-.+|({LATEST}|\{_STARTING_OVER})\.writing")
_HALF_REMOVED = re.compile(r"\.removing-ckpt-\d+")


class Damaged(Exception):
    """A checkpoint is not what was written; the text says what is wrong with it."""


@dataclass(frozen=True)
class Manifest:
    """What is written beside a checkpoint.

    Attributes:
        step: the step it is of.
        measures: what was measured at that step.
        recipe: the settings it was trained with.
        files: name -> size in bytes.
        index: CRC-32 of the index file.
    """

    step: int
    measures: Mapping[str, float]
    recipe: str
    files: Mapping[str, int]
    index: int


class Store:
    """The checkpoints of one directory, by their steps."""

    def __init__(self, directory: str) -> None:
        self.disk = Disk(directory)
        self._lock = Lock(Path(self.disk.directory)) if self.disk.local else None

    def open(self) -> bool:
        """Make the directory, take its lock, see that it can be written to, and finish what killed runs left half done.

        Gives whether there is a lock on it: not on a file system that has none.

        Raises:
            Held: another run is training in it.
            FileExistsError: its ``checkpoint`` file is somebody else's.
            OSError, tf.errors.OpError: it cannot be made or written to.
        """
        tf.io.gfile.makedirs(self.disk.directory)
        locked = self._lock.take() if self._lock else False
        self._refuse_foreign()
        self._try_out()
        for name in self.disk.list():
            if _HALF_WRITTEN.fullmatch(name):
                self.disk.clear(name)
            elif _HALF_REMOVED.fullmatch(name):
                self._remove_files(name)
        return locked

    def close(self) -> None:
        if self._lock:
            self._lock.release()

    def steps(self) -> list[int]:
        """The steps there are checkpoints of, good or damaged, oldest first."""
        return sorted(int(match[1]) for match in map(_NAME.fullmatch, self.disk.list()) if match)

    def manifest(self, step: int) -> Manifest:
        """Read a manifest.

        Raises:
            Damaged: it is missing, or not what was written.
        """
        return self._manifest(_name(step))

    def load(self, step: int) -> tuple[Manifest, dict[str, Any]]:
        """A checkpoint's manifest and values, if all of it is what was written.

        Raises:
            Damaged: it is not.
            OSError, tf.errors.OpError: nobody can tell; the files cannot be read just now, or not by this process.
        """
        manifest = self.manifest(step)
        for name, size in manifest.files.items():
            if (found := self._size(f"{_name(step)}/{name}")) != size:
                raise Damaged(f"{name} has {found:,} bytes, not {size:,}" if found >= 0 else f"{name} is missing")
        if self.disk.checksum(f"{_name(step)}/{INDEX}") != manifest.index:
            raise Damaged(f"{INDEX} is not what was written")
        try:
            return manifest, read(self.disk.path(f"{_name(step)}/{STATE}"))
        except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as error:
            raise Damaged(f"the values are not what was written: {reason(error)}") from None

    def set_aside(self, step: int) -> str:
        """Take a damaged checkpoint out of the way, and give its new name."""
        return self._move(_name(step), f"damaged-{_name(step)}")

    @property
    def starting_over(self) -> bool:
        """Whether a run was killed while it started over."""
        return _STARTING_OVER in self.disk.list()

    def start_over(self) -> str:
        """Move everything of the past into a folder of its own and give its name; empty when there is no past.

        The name is written down first. From then on the past is gone: who finds that file has to start over.
        """
        if not self.starting_over:
            if not self._past():
                return ""
            self.disk.put(_STARTING_OVER, self._free(time.strftime("before-%Y%m%dT%H%M%SZ", time.gmtime())))
        folder = self.disk.get(_STARTING_OVER).decode()
        tf.io.gfile.makedirs(self.disk.path(folder))
        for name in self._past():
            # Where renaming is copying, a killed run may have moved some of its files.
            self.disk.rename(name, f"{folder}/{name}", overwrite=True)
        self.disk.sync(folder)
        self.disk.remove(_STARTING_OVER)
        self.disk.sync("")
        return folder

    def sign(self, run: str) -> None:
        """Write down which run has started over, so that none of its later attempts does."""
        self.disk.put(_BEGUN_BY, run)

    def begun_by(self, run: str) -> bool:
        """Whether an attempt of this run was the last that started over."""
        return _BEGUN_BY in self.disk.list() and self.disk.get(_BEGUN_BY).decode() == run

    def write(self, step: int, write: Callable[[str], object], measures: Mapping[str, float], recipe: str) -> None:
        """Have ``write(prefix)`` write a checkpoint, and put it in place.

        Raises:
            OSError, tf.errors.OpError: the disk is full, the directory is gone, ...; what was there before still is.
        """
        name = _name(step)
        passing = f".writing-{name}" if self.disk.local else name
        try:
            self._make(passing)
            write(self.disk.path(f"{passing}/{STATE}"))
            files = {file: self.disk.size(f"{passing}/{file}") for file in self.disk.list(passing)}
            self.disk.sync(*(f"{passing}/{file}" for file in files))
            manifest = Manifest(step, measures, recipe, files, self.disk.checksum(f"{passing}/{INDEX}"))
            self.disk.put(f"{passing}/{MANIFEST}", json.dumps(asdict(manifest), indent=1) + "\n")
            if self.disk.local:
                self.disk.rename(passing, name)
        except BaseException:
            self.disk.clear(passing)
            raise

    def measure(self, step: int, measures: Mapping[str, float]) -> None:
        """Put measures that were taken later beside a checkpoint.

        Raises:
            Damaged: its manifest is.
            OSError, tf.errors.OpError: as for ``write``.
        """
        manifest = replace(self.manifest(step), measures=measures)
        self.disk.put(f"{_name(step)}/{MANIFEST}", json.dumps(asdict(manifest), indent=1) + "\n")

    def keep(self, steps: Iterable[int]) -> None:
        """Say which checkpoints there are from now on, the latest among them, and remove the others that are whole."""
        kept = sorted(steps)
        lines = [f'model_checkpoint_path: "{_name(kept[-1])}/{STATE}"']
        for step in kept:
            lines.append(f'all_model_checkpoint_paths: "{_name(step)}/{STATE}"')
            # Without the times, CheckpointManager does not see those paths.
            lines.append(f"all_model_checkpoint_timestamps: {self.disk.time(f'{_name(step)}/{MANIFEST}')}")
        self.disk.put(LATEST, "\n".join(lines) + "\n")
        for step in self.steps():
            if step not in kept:
                self._remove(_name(step))

    def _past(self) -> list[str]:
        # The file that names the latest goes first: nobody shall find in it what is about to move.
        names = self.disk.list()
        return [name for name in (LATEST, EXPORT, *map(_name, reversed(self.steps()))) if name in names]

    def _size(self, name: str) -> int:
        try:
            return self.disk.size(name)
        except tf.errors.NotFoundError:
            return -1

    def _refuse_foreign(self) -> None:
        """A ``checkpoint`` file that names other checkpoints than ours belongs to a program that would lose it."""
        state = tf.train.get_checkpoint_state(self.disk.directory)
        latest = os.path.relpath(state.model_checkpoint_path, self.disk.directory) if state else ""
        if state and not re.fullmatch(rf"ckpt-\d+/{STATE}", latest):
            raise FileExistsError(f"it holds checkpoints that are not the trainer's own ({latest})")

    def _try_out(self) -> None:
        try:
            self._make(".writing-trial")
            self.disk.put(".writing-trial/trial", "can be written to\n")
        finally:
            self.disk.clear(".writing-trial")

    def _make(self, name: str) -> None:
        """Make a folder, anew on a local disk. The directory itself is not made again when it is gone.

        It may be a mount that is gone, and what is below that no place to write to.
        """
        if not self.disk.local:
            tf.io.gfile.makedirs(self.disk.path(name))
            return
        self.disk.clear(name)
        tf.io.gfile.mkdir(self.disk.path(name))

    def _manifest(self, name: str) -> Manifest:
        try:
            fields = json.loads(self.disk.get(f"{name}/{MANIFEST}"))
            return Manifest(
                step=int(fields["step"]),
                measures=dict(fields["measures"]),
                recipe=str(fields["recipe"]),
                files={str(file): int(size) for file, size in fields["files"].items()},
                index=int(fields["index"]),
            )
        except tf.errors.NotFoundError:
            raise Damaged(f"it has no {MANIFEST}") from None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise Damaged(f"its {MANIFEST} is not what was written") from None

    def _remove(self, name: str) -> None:
        """Remove a checkpoint, under another name first: at no moment is there half a checkpoint by its own name.

        One without a usable manifest stays: nobody knows what of it was written here.
        """
        try:
            self._manifest(name)
        except Damaged:
            return
        if self.disk.local:
            self.disk.rename(name, f".removing-{name}")
            name = f".removing-{name}"
        self._remove_files(name)

    def _remove_files(self, name: str) -> None:
        """Remove what was written; what somebody has added stays, and shows."""
        try:
            for file in (*self._manifest(name).files, MANIFEST):
                self.disk.remove(f"{name}/{file}")
        except Damaged:
            # A removal was cut short when all but the folder was gone.
            pass
        # Object stores have no folders but in the names of files.
        if not tf.io.gfile.exists(self.disk.path(name)):
            return
        if self.disk.list(name):
            self._move(name, f"left-{name.removeprefix('.removing-')}")
        else:
            self.disk.clear(name)

    def _move(self, name: str, wanted: str) -> str:
        new = self._free(wanted)
        self.disk.rename(name, new)
        return new

    def _free(self, wanted: str) -> str:
        taken = set(self.disk.list())
        number, name = 1, wanted
        while name in taken:
            number += 1
            name = f"{wanted}-{number}"
        return name


def _name(step: int) -> str:
    return f"ckpt-{step}"
