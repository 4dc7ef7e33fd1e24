"""What hosts answered to what they were asked, turned into findings: of which host, how it is, and what to do. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from launcher import reach
from launcher.config import Module, Program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from launcher.config import Command
    from launcher.reach import Dialled

State = Literal["ok", "warn", "bad"]

# What has to be the same everywhere, and up to which part of its version.
_ALIKE = {"python": 2, "tensorflow": 3, "keras": 3}
_CLOCKS = 1.0
_ROOM = 1 << 30
_INSTALL = "pip install tensorflow there, or name an interpreter that has it: --python"


class Finding(NamedTuple):
    """One check of one host.

    Attributes:
        said: in a word, what was found.
        why: in a sentence, what is wrong; empty where all is well.
        remedy: what to do about it.
    """

    host: str
    check: str
    state: State
    said: str
    why: str = ""
    remedy: str = ""


class Seen(NamedTuple):
    """What is known of a host that was asked.

    Attributes:
        lost: why it has no agent, and ``hint``; empty where it has one.
        took: seconds until its agent was there.
        facts: ``agent/facts.py``.
        ahead: seconds that its clock is ahead of ours.
        premises: ``agent/premises.py``; None where it did not answer.
        dialled: what came of its dialling all hosts; None likewise.
        left: ``agent/leftovers.py``; None likewise.
        cleaned: runs whose processes were ended, and folders that were deleted.
    """

    host: str
    lost: str = ""
    hint: str = ""
    took: float = 0.0
    facts: Mapping[str, Any] = {}
    ahead: float = 0.0
    premises: Mapping[str, Any] | None = None
    dialled: Sequence[Dialled] | None = None
    left: Mapping[str, Any] | None = None
    cleaned: Sequence[str] = ()


def findings(command: Command | None, seen: Sequence[Seen]) -> list[Finding]:
    """All findings, host by host; differences between hosts are held against those that differ from most."""
    found = [finding for one in seen for finding in _host(command, one)]
    return [_held_against(finding, found) for finding in found]


def _host(command: Command | None, seen: Seen) -> Iterator[Finding]:
    if seen.lost:
        yield Finding(seen.host, "agent", "bad", "no", seen.lost, seen.hint)
        return
    yield Finding(seen.host, "agent", "ok", f"{seen.took:.2f} s")
    if seen.premises is None:
        why = "it does not say what is there for the workers: a disk that does not answer, maybe"
        yield Finding(seen.host, "program", "bad", "?", why, "look at its file systems: df, mount")
    else:
        yield from interpreter(command, seen)
        yield program(command, seen)
        yield _gpus(seen, seen.premises["driver"])
        yield Finding(seen.host, "cores", "ok", str(len(seen.facts["cores"])))
        yield Finding(seen.host, "memory", "ok", _bytes(seen.premises["memory"]))
        yield _disk(seen, seen.premises["disks"])
    yield _clock(seen)
    yield _peers(seen)
    yield _left(seen)


def interpreter(command: Command | None, seen: Seen) -> Iterator[Finding]:
    """What the workers' interpreter is, and what it has; nothing where it was not asked."""
    answer = (seen.premises or {}).get("python")
    if answer is None:
        return
    if "error" in answer:
        remedy = 'name one that works: --python, or "python" in cluster.json'
        yield Finding(seen.host, "python", "bad", "no", f"the workers' interpreter: {answer['error']}", remedy)
        return
    yield Finding(seen.host, "python", "ok", ".".join(map(str, answer["version"])))
    tensorflow, keras = answer["modules"]["tensorflow"], answer["modules"]["keras"]
    if tensorflow["missing"]:
        needs_it = not isinstance(command, Program)
        why = "TensorFlow is not installed for the workers' interpreter" if needs_it else ""
        yield Finding(seen.host, "tensorflow", "bad" if needs_it else "ok", "no", why, _INSTALL if needs_it else "")
        return
    yield Finding(seen.host, "tensorflow", "ok", tensorflow["version"] or "yes")
    version = keras["version"] or ("no" if keras["missing"] else "yes")
    # Keras 3 cannot fit across workers by itself (worker/keras3).
    yield Finding(seen.host, "keras", "ok", f"{version}, repaired" if version.startswith("3.") else version)


def program(command: Command | None, seen: Seen) -> Finding:
    """Whether what is to be run is there."""
    assert seen.premises is not None  # noqa: S101 - the caller's contract
    for kind, name in seen.premises["lacks"].items():
        return Finding(seen.host, "program", "bad", "no", f"no such {kind}: {name}", _FETCH_IT[kind])
    module = _module(seen, command.name) if isinstance(command, Module) else None
    if module and module["missing"]:
        why = f"no module named {module['missing']}"
        return Finding(seen.host, "program", "bad", "no", why, _FETCH_IT["module"])
    if module and not module["runs"]:
        why = f"{module['name']} is a package and cannot be run"
        return Finding(seen.host, "program", "bad", "no", why, "it needs a __main__.py")
    return Finding(seen.host, "program", "ok", "there")


_COPY = 'copy it to the hosts with "sync"'
_FETCH_IT = {
    "folder": f'{_COPY}, or name a folder that is there with "cwd"',
    "script": f'{_COPY}, or name the folder that has it with "cwd"',
    "program": "install it there, or name it with its path",
    "module": f"{_COPY}, or install it for the workers' interpreter",
}


def _module(seen: Seen, name: str) -> Mapping[str, Any] | None:
    answer = (seen.premises or {}).get("python") or {}
    found = answer.get("modules", {}).get(name)
    return {**found, "name": name} if found else None


def _gpus(seen: Seen, driver: str) -> Finding:
    count = len(seen.facts["gpus"])
    said = "none" if not count else f"{count}, driver {driver}" if driver else str(count)
    return Finding(seen.host, "gpus", "ok", said)


def _disk(seen: Seen, disks: Sequence[Mapping[str, Any]]) -> Finding:
    if not disks:
        return Finding(seen.host, "disk", "ok", "?")
    least = min(disks, key=lambda disk: int(disk["free"]))
    said = _bytes(least["free"])
    if least["free"] >= _ROOM:
        return Finding(seen.host, "disk", "ok", said)
    why = f"{said} free at {least['path']}"
    return Finding(seen.host, "disk", "warn", said, why, "make room: a checkpoint needs it, and /dev/shm data loaders")


def _clock(seen: Seen) -> Finding:
    if abs(seen.ahead) <= _CLOCKS:
        return Finding(seen.host, "clock", "ok", "right")
    way = "ahead" if seen.ahead > 0 else "behind"
    why = f"its clock is {abs(seen.ahead):.1f} s {way} of this machine's"
    return Finding(
        seen.host, "clock", "warn", f"{seen.ahead:+.1f} s", why, "set it by NTP: chronyc makestep, timedatectl"
    )


def _peers(seen: Seen) -> Finding:
    if seen.dialled is None:
        return Finding(seen.host, "peers", "bad", "?", "it does not say whom it reaches")
    if not seen.dialled:
        return Finding(seen.host, "peers", "ok", "-")
    all_of_them = {one.callee for one in seen.dialled}
    missed = reach.failing(seen.dialled).get(seen.host, [])
    trips = [one.trip for one in seen.dialled if one.trip is not None and one.callee != seen.host]
    said = f"{len(all_of_them) - len(missed)} of {len(all_of_them)}"
    said += f", {max(trips) * 1000:.2g} ms" if trips else ""
    sizes = {one.mtu for one in seen.dialled if one.mtu is not None and one.callee != seen.host}
    said += f", MTU {min(sizes)}" if sizes else ""
    # What is in the way, and what to do, is said of both ends at once (reach.py).
    return Finding(seen.host, "peers", "bad" if missed else "ok", said)


def _left(seen: Seen) -> Finding:
    if seen.left is None:
        return Finding(seen.host, "left", "ok", "?")
    lost = [run for run in seen.left["runs"] if not run["alive"]]
    alive = [run["run"] for run in seen.left["runs"] if run["alive"]]
    old = [folder for folder in seen.left["folders"] if folder["old"]]
    said = f"{len(seen.cleaned)} cleaned" if seen.cleaned else "none"
    if alive:
        said = f"{len(alive)} at work"
    if not lost and not old:
        return Finding(seen.host, "left", "ok", said)
    things = [f"{one['processes']} process{'es' * (one['processes'] > 1)} of {one['run']}" for one in lost]
    if old:
        things.append(f"{len(old)} old folder{'s' * (len(old) > 1)} with {_bytes(sum(one['size'] for one in old))}")
    why = f"earlier runs have left {', '.join(things)}"
    return Finding(
        seen.host, "left", "warn", f"{len(things)} left", why, "tflaunch check --clean ends and deletes exactly those"
    )


def _held_against(finding: Finding, found: Sequence[Finding]) -> Finding:
    """The same, unless its version is another than that of most hosts."""
    parts = _ALIKE.get(finding.check)
    if parts is None or finding.state != "ok":
        return finding
    versions = Counter(version(one, parts) for one in found if one.check == finding.check and one.state == "ok")
    (usual, _), *others = versions.most_common()
    mine = version(finding, parts)
    if not others or mine == usual:
        return finding
    why = f"{_NAMES[finding.check]} {mine} here, {usual} on {'most' if versions.total() > 2 else 'other'} hosts"
    return finding._replace(state="warn", why=why, remedy="give all hosts the same: workers that differ may not agree")


def version(finding: Finding, parts: int) -> str:
    """So many parts of the version that was found."""
    return ".".join(finding.said.partition(",")[0].split(".")[:parts])


_NAMES = {"python": "Python", "tensorflow": "TensorFlow", "keras": "Keras"}


def differences(seen: Sequence[Seen]) -> list[str]:
    """A line for each thing whose version differs between hosts."""
    found = [each for one in seen for each in interpreter(None, one) if each.check in _ALIKE]
    lines = []
    for check, parts in _ALIKE.items():
        by_version: dict[str, list[str]] = {}
        for one in found:
            if one.check == check:
                number = version(one, parts) if one.state == "ok" else "none"
                by_version.setdefault(number, []).append(one.host)
        if len(by_version) > 1:
            each = (f"{number} on {', '.join(hosts)}" for number, hosts in by_version.items())
            lines.append(f"hosts differ: {_NAMES[check]} {'; '.join(each)}")
    return lines


def _bytes(count: int | None) -> str:
    if count is None:
        return "?"
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
