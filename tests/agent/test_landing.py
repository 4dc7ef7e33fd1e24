from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.agent import landing
from launcher.engines import travel

# As the engine has it started on a host.
_COMMAND = [sys.executable, "-I", "-S", "-c", 'exec(open(0,"rb",0,closefd=False).readline())']


def land(home: Path, digest: str, then: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """What comes to a host, with what is sent when it is asked for; then the wire ends."""
    order = {"digest": digest, "options": {"private": False, "silence": None}}
    source = Path(landing.__file__).read_text(encoding="utf-8")
    given = f"exec({source!r})\n{json.dumps(order)}\n".encode() + then
    return subprocess.run(_COMMAND, input=given, capture_output=True, check=False, env={"HOME": str(home)})


def kept(home: Path) -> list[str]:
    return sorted(path.name for path in (home / ".cache/tflaunch").iterdir())


def test_what_is_lacking_is_taken_in_once(tmp_path: Path) -> None:
    first = land(tmp_path, travel._digest(), travel._sized_zip())
    assert first.stdout.startswith(landing.MARK + b"-"), first.stderr
    assert b'"hello"' in first.stdout
    assert kept(tmp_path) == [f"agent-{travel._digest()[:16]}"]

    again = land(tmp_path, travel._digest())
    assert again.stdout.startswith(landing.MARK + b"+"), again.stderr
    assert b'"hello"' in again.stdout


def test_all_that_was_meant_is_there(tmp_path: Path) -> None:
    land(tmp_path, travel._digest(), travel._sized_zip())
    (folder,) = (tmp_path / ".cache/tflaunch").iterdir()
    for name, content in travel._files():
        assert (folder / name).read_bytes() == content


@pytest.mark.parametrize("digest", ["0" * 64, landing.digest_of(travel._files()[1:])])
def test_what_is_not_what_was_meant_is_not_kept(tmp_path: Path, digest: str) -> None:
    ended = land(tmp_path, digest, travel._sized_zip())
    assert ended.returncode == 1
    assert ended.stderr == b"the agent did not arrive as it was sent\n"
    assert kept(tmp_path) == []


def test_a_name_or_a_border_that_moves_makes_another_digest() -> None:
    files = [[("a", b"bc"), ("d", b"")], [("ab", b"c"), ("d", b"")], [("a", b"b"), ("cd", b"")], [("a", b"bcd")]]
    assert len({landing.digest_of(each) for each in files}) == len(files)
