from __future__ import annotations

import pytest

from worker import progress
from worker.progress import Progress


class Watched:
    """A progress with a clock that is set by hand, and all that it says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, epochs: int = 4, steps: int = 400) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.records: list[tuple[str, dict[str, object]]] = []
        monkeypatch.setattr(progress, "report", lambda kind, **fields: self.records.append((kind, fields)))
        self.told = Progress(self._say, epochs, steps, 10, clock=lambda: self.now)

    def _say(self, label: str, text: str) -> None:
        self.lines.append(f"{label} {text}")


def test_records_four_times_a_second_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, steps=10)
    for step in range(1, 11):
        watched.told.stepped(0, step, 0.5)
        watched.now += 0.1
    assert [fields["step"] for _, fields in watched.records] == [1, 4, 7, 10]
    assert watched.records[0] == ("progress", {"step": 1, "of": 10, "loss": 0.5})


def test_an_epoch_is_told_with_its_measures_its_speed_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watched.now = 60.0
    watched.told.stepped(0, 1, 9.0)
    watched.now = 70.0
    watched.told.epoch_done(0, 101, {"loss": 0.25, "sparse_categorical_accuracy": 0.5, "step": 101})
    # 100 steps of 10 examples in 10 s: the first step, which compiles, does not count.
    assert watched.lines == ["epoch 1/4   step 101/400   loss 0.2500   accuracy 0.5000   100 examples/s   0:30 left"]


def test_long_epochs_are_told_of_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    for step in range(1, 6):
        watched.told.stepped(0, step, 1.0)
        watched.now += 6
    assert [line.split(" step ")[1].split("/")[0].strip() for line in watched.lines] == ["3", "5"]


def test_of_many_short_epochs_every_tenth_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, epochs=95, steps=95)
    for epoch in range(95):
        watched.told.epoch_done(epoch, epoch + 1, {"loss": 1.0})
    assert [line.split()[1] for line in watched.lines] == [f"{number}/95" for number in (*range(10, 95, 10), 95)]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")])
def test_durations_as_people_write_them(seconds: float, text: str) -> None:
    assert progress._duration(seconds) == text
