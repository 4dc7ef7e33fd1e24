from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from launcher import warmth
from launcher.agent import kernel
from launcher.config import Function
from launcher.errors import RequestError
from launcher.testing.call import Answer, Call, Work
from launcher.testing.settings import settings_of


def test_work_has_a_name_that_a_directory_can_have() -> None:
    assert Work.of(lambda: None, (), {}).name == "lambda"
    assert Work.of(pickle.dumps, (), {}).name == "dumps"


def test_work_knows_where_it_is_defined(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.touch()
    assert Work.of(test_what_is_sent, (), {}).source == __file__
    assert Work.of(len, (), {}).source == ""
    assert Work.of_script(script, ["--lr", "1"]) == Work("train", None, (str(script), "--lr", "1"), str(script))
    with pytest.raises(RequestError, match="no such script"):
        Work.of_script(tmp_path / "nowhere.py", ())


@pytest.mark.skipif(not kernel.LINUX, reason="warm start is for Linux")
@pytest.mark.parametrize(
    ("text", "workers", "warm"),
    [
        ("def train():\n    import tensorflow\n", 2, {0, 1}),
        ("def train():\n    import tensorflow\n", 1, set()),
        ("def train():\n    import json\n", 2, set()),
    ],
)
def test_where_it_imports_tensorflow_it_is_started_warm(
    tmp_path: Path, text: str, workers: int, warm: set[int]
) -> None:
    source = tmp_path / "test_it.py"
    source.write_text(text)
    config = replace(settings_of(tmp_path, {"workers": workers}), command=Function("p", str(source)))
    hosts = ["127.0.0.1"] * config.workers
    assert warmth.decide(config, hosts).tasks == warm
    assert warmth.decide(replace(config, warm=False), hosts).tasks == set()


def test_what_is_defined_nowhere_imports_nothing(tmp_path: Path) -> None:
    config = replace(settings_of(tmp_path, {}), command=Function("p"))
    assert warmth.decide(config, ["127.0.0.1"] * config.workers) == warmth.Warmth()


def test_what_is_sent(tmp_path: Path) -> None:
    call = Call(tmp_path / "call")
    faults = {"worker:0": {"steps": [(5, "SIGKILL")]}}
    call.send(Work("f", b"pickled"), faults)
    order = pickle.loads(call.payload.read_bytes())
    assert order == {"function": b"pickled", "script": [], "path": sys.path, "faults": faults}


def test_who_left_nothing_has_no_answer(tmp_path: Path) -> None:
    assert Call(tmp_path).answer("worker-0") == Answer()


def test_an_answer(tmp_path: Path) -> None:
    (tmp_path / "worker-0.pickle").write_bytes(pickle.dumps({"error": b"e", "traceback": "t"}))
    assert Call(tmp_path).answer("worker-0") == Answer(error=b"e", traceback="t")
