"""Who cannot reach whom, in few words, from what came of dialling every port from every host. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# More sentences than these say no more.
_MOST = 8


class Dialled(NamedTuple):
    """What came of one try, as ``agent/dialling.py`` tells it.

    Attributes:
        trip: the round trip in seconds.
        mtu: bytes of the largest packet that fits the way, as far as the caller's kernel knows.
    """

    caller: str
    callee: str
    port: int
    state: str
    said: str = ""
    trip: float | None = None
    mtu: int | None = None


class Obstacle(NamedTuple):
    """Something between hosts: what, in a sentence, and what to do about it."""

    reason: str
    hint: str


class _Kind(NamedTuple):
    state: str
    said: str


_WORDS = {
    "dropped": "silently dropped, as a firewall does",
    "refused": "refused, by a firewall that rejects or by another machine that has this address",
    "stuck": "small packets arrive, large ones vanish",
}
_ROUTE = "see to the route between them: subnets, a VPN, security groups"
_MTU = "make the MTU of both ends fit the way between them (ip link), or let ICMP through"
_NAME = 'give addresses that every host can dial ("address" in cluster.json), or make the name known there (DNS, /etc/hosts)'

_Pair = tuple[str, str]


def obstacles(dialled: Sequence[Dialled], ports: tuple[int, int] | None) -> list[Obstacle]:
    """What keeps hosts from each other, the fewest sentences first; none where all is well.

    Args:
        ports: the range that ports are leased from; None where the kernel picks.
    """
    hosts = list(dict.fromkeys(one.caller for one in dialled))
    kinds: dict[_Kind, dict[_Pair, list[int]]] = {}
    for one in dialled:
        if one.state != "ok":
            pairs = kinds.setdefault(_Kind(one.state, one.said), {})
            pairs.setdefault((one.caller, one.callee), []).append(one.port)
    found = []
    for kind, pairs in kinds.items():
        some = "" if _is_whole(pairs, dialled) else _on(pairs)
        sentences = [*_sentences(kind, pairs, hosts)]
        words = _WORDS.get(kind.state, kind.said)
        found += [Obstacle(f"{who}: {words}{some}", _hint(kind.state, ports)) for who in sentences[:_MOST]]
        if len(sentences) > _MOST:
            found.append(Obstacle(f"and so for {len(sentences) - _MOST} other pairs of hosts", ""))
    return found


def failing(dialled: Iterable[Dialled]) -> dict[str, list[str]]:
    """By host, those that it cannot reach."""
    found: dict[str, list[str]] = {}
    for one in dialled:
        if one.state != "ok" and one.callee not in found.setdefault(one.caller, []):
            found[one.caller].append(one.callee)
    return found


def _sentences(kind: _Kind, pairs: Mapping[_Pair, object], hosts: Sequence[str]) -> Iterator[str]:
    if kind.state == "unknown":
        for callee in dict.fromkeys(callee for _, callee in pairs):
            callers = [caller for caller, called in pairs if called == callee]
            yield f"{_listed(callers)} {'does' if len(callers) == 1 else 'do'} not know the name {callee}"
        return
    left = {pair for pair in pairs if pair[0] != pair[1]}
    alone = [host for host in hosts if (host, host) in pairs]
    if len(hosts) > 2 and len(left) == len(hosts) * (len(hosts) - 1):
        yield f"none of the {len(hosts)} hosts reaches another"
        return
    for host in hosts if len(hosts) > 2 else ():
        others = [other for other in hosts if other != host]
        into, out = ({pair for pair in left if pair[place] == host} for place in (1, 0))
        if len(into) == len(others) and len(out) == len(others):
            yield f"{host} and all other hosts cannot reach each other"
            left -= into | out
        elif len(into) == len(others):
            yield f"no host reaches {host}, not even itself" if host in alone else f"no other host reaches {host}"
            left -= into
            alone = [one for one in alone if one != host]
        elif len(out) == len(others):
            yield f"{host} reaches no other host"
            left -= out
    for caller, callee in (pair for pair in pairs if pair in left):
        if (callee, caller) not in left:
            yield f"{caller} cannot reach {callee}"
        elif hosts.index(caller) < hosts.index(callee):
            yield f"{caller} and {callee} cannot reach each other"
    for host in alone:
        yield f"{host} does not reach itself at that address"


def _is_whole(pairs: Mapping[_Pair, Sequence[int]], dialled: Sequence[Dialled]) -> bool:
    """Whether no port was reached of those that are between the same hosts."""
    return not any(one.state == "ok" and (one.caller, one.callee) in pairs for one in dialled)


def _on(pairs: Mapping[_Pair, Sequence[int]]) -> str:
    ports = sorted({port for several in pairs.values() for port in several})
    return f", on port{'s' if len(ports) > 1 else ''} {_listed([*map(str, ports)])} alone"


def _hint(state: str, ports: tuple[int, int] | None) -> str:
    match state:
        case "unknown":
            return _NAME
        case "unreachable":
            return _ROUTE
        case "stuck":
            return _MTU
    if ports is None:
        return "let TCP through between them, on all ports or on a range that you name with --ports LOW-HIGH"
    return f"let TCP through between them, on ports {ports[0]}-{ports[1]}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
