from __future__ import annotations

import ipaddress
import json
import os
import time

import pytest

from launcher.agent import facts


class TestGather:
    def test_everything_goes_over_the_wire(self) -> None:
        gathered = facts.gather()
        assert json.loads(json.dumps(gathered)) == gathered

    def test_this_host(self) -> None:
        gathered = facts.gather()
        assert gathered["hostname"] == os.uname().nodename
        assert gathered["pid"] == os.getpid()
        assert gathered["cores"] == facts.cores()
        assert abs(float(str(gathered["clock"])) - time.time()) < 60
        assert int(str(gathered["memory"])) > 1 << 20

    def test_what_its_owner_decided(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in facts.KEPT:
            monkeypatch.delenv(name, raising=False)
        assert facts.gather()["set"] == []
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        monkeypatch.setenv("PYTHONUNBUFFERED", "")
        assert facts.gather()["set"] == ["OMP_NUM_THREADS", "PYTHONUNBUFFERED"]


class TestCores:
    @pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="there is no affinity here")
    def test_only_those_that_may_be_used(self) -> None:
        allowed = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {max(allowed)})
            assert facts.cores() == [max(allowed)]
        finally:
            os.sched_setaffinity(0, allowed)
        assert facts.cores() == sorted(allowed)

    def test_without_affinity_all_of_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda: 3)
        assert facts.cores() == [0, 1, 2]


class TestGpus:
    @pytest.mark.parametrize(
        ("visible", "expected"),
        [("", []), ("-1", []), ("0", ["0"]), ("2, 0", ["2", "0"]), ("GPU-3faa,MIG-1", ["GPU-3faa", "MIG-1"])],
    )
    def test_those_the_user_made_visible(
        self, monkeypatch: pytest.MonkeyPatch, visible: str, expected: list[str]
    ) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert facts.gpus() == expected

    def test_else_every_device_in_the_order_of_their_numbers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(os, "listdir", lambda _: ["nvidia10", "nvidiactl", "null", "nvidia2", "nvidia-uvm"])
        assert facts.gpus() == ["2", "10"]

    def test_none_where_devices_cannot_be_listed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

        def refuse(_: str) -> list[str]:
            raise PermissionError

        monkeypatch.setattr(os, "listdir", refuse)
        assert facts.gpus() == []


def test_exposed_addresses_are_those_that_others_can_dial() -> None:
    assert all(not ipaddress.ip_address(address).is_loopback for address in facts.exposed())
