from __future__ import annotations

import os
import random
import select
from random import Random
from typing import TYPE_CHECKING

import pytest

from launcher.agent import wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Frame = tuple[int, int, bytes]

FRAMES: list[Frame] = [
    (wire.CONTROL, 0, b"{}"),
    (wire.OUTPUT, 7, b"\x00\xff\r\n"),
    (wire.OUTPUT, 2**32 - 1, b""),
    (wire.OUTPUT, 0, b"x" * 5000),
]


def encoded(frames: list[Frame]) -> bytes:
    return b"".join(wire.HEADER.pack(kind, task, len(payload)) + payload for kind, task, payload in frames)


class TestReader:
    def test_frames_come_out_as_they_went_in(self) -> None:
        assert list(wire.Reader().feed(encoded(FRAMES))) == FRAMES

    def test_byte_by_byte(self) -> None:
        reader = wire.Reader()
        data = encoded(FRAMES)
        assert [frame for i in range(len(data)) for frame in reader.feed(data[i : i + 1])] == FRAMES

    @pytest.mark.parametrize("seed", range(20))
    def test_however_they_are_cut(self, seed: int) -> None:
        dice, reader, data = random.Random(seed), wire.Reader(), encoded(FRAMES * 3)
        found = []
        while data:
            size = dice.randint(1, 3000)
            found += list(reader.feed(data[:size]))
            data = data[size:]
        assert found == FRAMES * 3

    def test_a_frame_is_given_out_as_soon_as_it_is_whole(self) -> None:
        reader, data = wire.Reader(), encoded(FRAMES[:1])
        assert list(reader.feed(data[:-1])) == []
        assert list(reader.feed(data[-1:] + data[:3])) == FRAMES[:1]

    @pytest.mark.parametrize(
        "noise",
        [b"Last login: Mon\n", b"\x03" + bytes(8), wire.HEADER.pack(wire.OUTPUT, 0, wire.LONGEST + 1)],
        ids=["a shell profile", "an unknown kind", "too long"],
    )
    def test_what_is_no_frame(self, noise: bytes) -> None:
        reader = wire.Reader()
        frames = reader.feed(encoded(FRAMES[:1]) + noise)
        assert next(frames) == FRAMES[0]
        with pytest.raises(wire.WireError, match="not a frame"):
            next(frames)


def opened() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    for descriptor in (read, write):
        os.set_blocking(descriptor, False)
    yield read, write
    for descriptor in (read, write):
        os.close(descriptor)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    yield from opened()


class TestWriter:
    def test_frames_go_out_in_order(self, pipe: tuple[int, int]) -> None:
        writer = wire.Writer(pipe[1])
        writer.control({"do": "ping"})
        writer.output(3, b"a\xffb")
        writer.output(3, b"")
        expected = wire.control({"do": "ping"}) + encoded([(wire.OUTPUT, 3, b"a\xffb"), (wire.OUTPUT, 3, b"")])
        assert writer.pending == len(expected)
        writer.flush()
        assert writer.pending == 0
        assert os.read(pipe[0], 1000) == expected

    def test_what_does_not_fit_is_kept(self, pipe: tuple[int, int]) -> None:
        writer, reader = wire.Writer(pipe[1]), wire.Reader()
        frames: list[Frame] = [(wire.OUTPUT, i, bytes([i]) * (i * 997)) for i in range(200)]
        for _, task, payload in frames:
            writer.output(task, payload)
        writer.flush()
        assert writer.pending > 0
        found: list[Frame] = []
        while len(found) < len(frames):
            found += reader.feed(os.read(pipe[0], 50_000))
            writer.flush()
        assert found == frames
        assert writer.pending == 0

    def test_many_small_frames(self, pipe: tuple[int, int]) -> None:
        writer, reader = wire.Writer(pipe[1]), wire.Reader()
        for task in range(5000):
            writer.control({"task": task})
        found = 0
        while found < 5000:
            writer.flush()
            found += len(list(reader.feed(os.read(pipe[0], 1 << 20))))
        assert writer.pending == 0

    def test_nobody_reads_any_more(self) -> None:
        read, write = os.pipe()
        os.close(read)
        writer = wire.Writer(write)
        writer.control({"do": "ping"})
        with pytest.raises(BrokenPipeError):
            writer.flush()
        os.close(write)


class TestRelay:
    """What lies in a pipe, as a frame."""

    @pytest.fixture
    def source(self) -> Iterator[tuple[int, int]]:
        yield from opened()

    def test_so_many_bytes_of_it(self, pipe: tuple[int, int], source: tuple[int, int]) -> None:
        os.write(source[1], bytes(range(256)) * 100)
        writer = wire.Writer(pipe[1])
        writer.relay(7, source[0], 20_000)
        assert writer.pending == 0
        assert os.read(pipe[0], 1 << 20) == encoded([(wire.OUTPUT, 7, (bytes(range(256)) * 100)[:20_000])])
        assert os.read(source[0], 1 << 20) == (bytes(range(256)) * 100)[20_000:]

    @pytest.mark.parametrize("before", [0, 30_000, 65_530, 65_536])
    def test_what_does_not_fit_is_kept(self, pipe: tuple[int, int], source: tuple[int, int], before: int) -> None:
        os.write(pipe[1], bytes(before))
        os.write(source[1], b"x" * 60_000)
        writer = wire.Writer(pipe[1])
        writer.relay(7, source[0], 60_000)
        writer.control({"do": "ping"})
        came = b""
        while writer.pending or select.select([pipe[0]], [], [], 0)[0]:
            came += os.read(pipe[0], 10_000)
            writer.flush()
        assert came[before:] == encoded([(wire.OUTPUT, 7, b"x" * 60_000)]) + wire.control({"do": "ping"})

    def test_into_what_is_no_pipe(self, source: tuple[int, int], tmp_path: Path) -> None:
        os.write(source[1], b"x" * 60_000)
        descriptor = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT | os.O_APPEND)  # refuses a splice
        writer = wire.Writer(descriptor)
        writer.relay(7, source[0], 60_000)
        writer.flush()
        os.close(descriptor)
        assert (tmp_path / "file").read_bytes() == encoded([(wire.OUTPUT, 7, b"x" * 60_000)])

    @pytest.mark.parametrize("ended", [False, True])
    def test_somebody_else_has_read_the_pipe(
        self, pipe: tuple[int, int], source: tuple[int, int], *, ended: bool
    ) -> None:
        os.write(source[1], b"x" * 1000)
        if ended:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, source[1])
            os.close(null)
        writer = wire.Writer(pipe[1])
        writer.relay(7, source[0], 1_500)
        writer.control({"do": "ping"})
        writer.flush()
        assert os.read(pipe[0], 1 << 20) == encoded([(wire.OUTPUT, 7, b"x" * 1000 + bytes(500))]) + wire.control(
            {"do": "ping"}
        )

    def test_nobody_listens_any_more(self, source: tuple[int, int]) -> None:
        os.write(source[1], b"x" * 1000)
        read, write = os.pipe()
        os.close(read)
        with pytest.raises(BrokenPipeError):
            wire.Writer(write).relay(7, source[0], 1000)
        os.close(write)


def test_a_control_frame_is_json() -> None:
    ((kind, task, payload),) = wire.Reader().feed(wire.control({"do": "spawn", "argv": ["é", "caf\udce9"]}))
    assert (kind, task) == (wire.CONTROL, 0)
    assert payload == rb'{"do":"spawn","argv":["\u00e9","caf\udce9"]}'


class TestKeeping:
    """What was written is kept until it has arrived, and can be written again."""

    @pytest.fixture
    def writer(self, pipe: tuple[int, int]) -> wire.Writer:
        return wire.Writer(pipe[1], keep=True)

    def test_only_what_has_not_arrived_is_written_again(self, writer: wire.Writer, pipe: tuple[int, int]) -> None:
        writer.precede(b"not counted")
        for number in range(3):
            writer.control({"n": number})
        writer.flush()
        assert os.read(pipe[0], 1000).startswith(b"not counted")
        stream = b"".join(wire.control({"n": number}) for number in range(3))
        assert writer.held == len(stream)
        writer.acknowledge(5)
        writer.control({"n": 3})
        writer.rewind(20)
        writer.flush()
        assert os.read(pipe[0], 1000) == (stream + wire.control({"n": 3}))[20:]

    def test_what_has_arrived_is_not_kept(self, writer: wire.Writer) -> None:
        writer.control({"n": 1})
        writer.flush()
        writer.acknowledge(writer.held)
        assert writer.held == 0
        writer.rewind(len(wire.control({"n": 1})))
        assert writer.pending == 0

    @pytest.mark.parametrize("seed", range(20))
    def test_whenever_the_line_is_cut_the_reader_sees_one_stream(self, seed: int) -> None:
        random = Random(seed)
        frames = [(wire.OUTPUT, number, random.randbytes(random.randrange(3000))) for number in range(200)]
        left = list(frames)
        seen: list[tuple[int, int, bytes]] = []
        writer, reader, arrived = wire.Writer(-1, keep=True), wire.Reader(), 0
        while len(seen) < len(frames):
            read, write = os.pipe()
            os.set_blocking(write, False)
            writer.descriptor = write
            writer.rewind(arrived)
            for _ in range(random.randrange(1, 20)):
                if left:
                    writer.output(*left.pop(0)[1:])
                writer.flush()
                if random.random() < 0.5 and select.select([read], [], [], 0)[0]:
                    data = os.read(read, random.randrange(1, 20_000))
                    arrived += len(data)
                    seen += list(reader.feed(data))
                if random.random() < 0.2:
                    writer.acknowledge(arrived)
            os.close(read)  # with whatever was under way
            os.close(write)
        assert seen == frames
