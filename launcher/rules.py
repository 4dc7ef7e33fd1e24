"""Whether the settings of one source are right: each value as ``keys`` has it, and all of them together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launcher.host_keys import PORT
from launcher.keys import FILE, FLAGS
from launcher.schema import Flaw, flaws

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def check(values: Mapping[str, object], *, flags: bool) -> list[Flaw]:
    """Everything that is wrong with the settings of one source, each on its own and taken together.

    Args:
        values: by key, as in cluster.json.
        flags: whether the source is the command line, which also knows the key ``task``.
    """
    found = list(flaws(FLAGS if flags else FILE, dict(values)))
    return [*found, *rules(sound(values, found))]


def sound(values: Mapping[str, object], found: list[Flaw]) -> dict[str, Any]:
    """The values without those that a flaw was found in; what is left has the types that the table says."""
    broken = {flaw.path[0] for flaw in found}
    return {name: value for name, value in values.items() if name not in broken}


def rules(values: Mapping[str, Any]) -> Iterator[Flaw]:
    """Yield where values that are sound each by itself do not go together."""
    yield from _hosts_once(values.get("hosts", ()))
    yield from _workers_add_up(values)
    if "subnet" in values:
        yield from _is_network(values["subnet"])
    if "ports" in values:
        yield from _ports_in_order(*port_range(values["ports"]))
    for index, name in enumerate(values.get("forward", ())):
        if name in values.get("env", {}):
            yield Flaw(("forward", index), f"{name} is also in env", "set it or forward it")


def is_this_machine(address: str) -> bool:
    """Whether the address is one that every machine has for itself."""
    return address in {"localhost", "127.0.0.1", "::1"}


def port_range(value: str | list[int]) -> tuple[int, int]:
    """First and last port of ``"20000-20100"`` or of a pair."""
    first, last = value.split("-") if isinstance(value, str) else value
    return int(first), int(last)


def _hosts_once(hosts: list[dict[str, Any]]) -> Iterator[Flaw]:
    seen: dict[str, int] = {}
    for index, host in enumerate(hosts):
        address = host["address"]
        machine = "localhost" if is_this_machine(address) else address.lower()
        if machine in seen:
            message = f"{address} is the same host as hosts[{seen[machine]}]"
            yield Flaw(("hosts", index, "address"), message, "add its workers to that one")
        seen.setdefault(machine, index)


def _workers_add_up(values: Mapping[str, Any]) -> Iterator[Flaw]:
    given = [host["workers"] for host in values.get("hosts", ()) if "workers" in host]
    workers = values.get("workers")
    if workers is None or not given:
        return
    if sum(given) > workers or (len(given) == len(values["hosts"]) and sum(given) < workers):
        message = f"is {workers}, but the workers of the hosts add up to {sum(given)}"
        yield Flaw(("workers",), message, "leave one of the two out")


def _is_network(value: str) -> Iterator[Flaw]:
    import ipaddress

    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        yield Flaw(("subnet",), f"must be a network such as 10.1.0.0/16, got {value}")


def _ports_in_order(first: int, last: int) -> Iterator[Flaw]:
    for port in (first, last):
        for flaw in flaws(PORT, port):
            yield flaw.below("ports")
    if first > last:
        yield Flaw(("ports",), f"run backwards, from {first} to {last}", f'write "{last}-{first}"')
