"""The keys of a host in cluster.json: where it is, how it is reached, and what of it is for the workers."""

from __future__ import annotations

from launcher.schema import MOST_TASKS, Either, Integer, Key, ListOf, MapOf, Object, Text

PORT = Integer(1, 65_535)

_ADDRESS = Text(
    "a host name or an IP address, with no user and no port",
    pattern=r"[A-Za-z0-9_][A-Za-z0-9._-]*|(?=.*:.*:)[0-9A-Fa-f:][0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?",
)

# What ssh is given begins with no dash, and holds nothing that a shell reads.
_ALIAS = Text("a host name or an alias of your ssh_config", pattern=r"[A-Za-z0-9_][A-Za-z0-9._:-]*")
_USER = Text("a user's name", pattern=r"[A-Za-z0-9_][A-Za-z0-9._@\\-]*")
_JUMP = r"([A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9_\[][A-Za-z0-9._:\]-]*"

HOST = Object(
    (
        Key(
            "address",
            _ADDRESS,
            "Name or IP address that the other hosts dial",
            "localhost, 127.0.0.1 and ::1 mean this machine.",
            required=True,
            examples=("10.0.0.11",),
        ),
        Key("workers", Integer(1, MOST_TASKS), "Workers on this host", otherwise="its even share of all workers"),
        Key(
            "cores",
            Either(
                (Integer(1, MOST_TASKS), ListOf(Integer(0, MOST_TASKS), least=1, unique=True, noun="a list of cores"))
            ),
            "Cores for the workers: how many, or which by number",
            otherwise="all that the host has",
        ),
        Key(
            "gpus",
            Either(
                (
                    Integer(0, MOST_TASKS),
                    ListOf(
                        Either(
                            (Integer(0, MOST_TASKS), Text("the number or UUID of a GPU", pattern=r"[A-Za-z0-9_/:.-]+"))
                        ),
                        unique=True,
                        noun="a list of GPUs",
                    ),
                )
            ),
            "GPUs for the workers: how many, or which by number or UUID",
            otherwise="all that the host has",
        ),
        Key(
            "python",
            Text(),
            "Python interpreter of this host",
            "A name on its PATH, or a path from its root.",
            otherwise="the cluster's, else python3",
            examples=("/opt/train/venv/bin/python",),
        ),
        Key("ssh", _ALIAS, "What the ssh client knows it as", otherwise="its address", examples=("gpu2",)),
        Key("user", _USER, "User to log in as", otherwise="as your ssh_config says"),
        Key("port", PORT, "Port of its sshd", otherwise="as your ssh_config says"),
        Key(
            "jump",
            Text("[user@]host[:port], several with commas between", pattern=f"{_JUMP}(,{_JUMP})*"),
            "Hosts to go through on the way, as ssh -J takes them",
            otherwise="as your ssh_config says",
            examples=("me@bastion.example.org",),
        ),
        Key(
            "ssh_options",
            MapOf(Text("the name of an ssh option", pattern=r"[A-Za-z][A-Za-z0-9]*"), Text(pattern=r"[^\u0000]*")),
            "Further options of the ssh client, as ssh_config names them",
            default={},
            examples=({"IdentityFile": "~/.ssh/cluster"},),
        ),
        Key("node", _ADDRESS, "What Slurm calls it", otherwise="its address", examples=("n17",)),
    )
)
