from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from launcher.errors import RequestError
from launcher.tf_config import Endpoint, Finding, Task, TfConfig, around, cluster, endpoint, lint, parse, text_of

PAIR = {"worker": ["a:2222", "b:2222"]}
WORKER_0 = {"type": "worker", "index": 0}


def config(jobs: object, task: object = WORKER_0, **other: object) -> TfConfig:
    return parse(json.dumps({"cluster": jobs, "task": task, **other}))


def found(*args: object, **other: object) -> list[tuple[str, str, str]]:
    """The findings without their hints."""
    return [(each.severity, each.path, each.message) for each in lint(config(*args, **other))]


def hints(*args: object, **other: object) -> list[str]:
    return [each.hint for each in lint(config(*args, **other))]


# Building


def test_jobs_and_indices_are_put_in_order_and_an_evaluator_is_left_out() -> None:
    jobs = cluster(
        [
            ("zeta", 0, "z:1"),
            ("ps", 0, "p:1"),
            ("evaluator", 0, "e:1"),
            ("worker", 10, "w10:1"),
            ("worker", 2, "w2:1"),
            ("chief", 0, "c:1"),
        ]
    )
    assert list(jobs.items()) == [
        ("chief", ["c:1"]),
        ("worker", ["w2:1", "w10:1"]),
        ("ps", ["p:1"]),
        ("zeta", ["z:1"]),
    ]


def test_a_task_is_rendered_as_compact_json() -> None:
    assert (
        text_of(PAIR).join(around("worker", 1))
        == '{"cluster":{"worker":["a:2222","b:2222"]},"task":{"type":"worker","index":1}}'
    )


def test_an_evaluator_sees_the_cluster_without_being_in_it() -> None:
    seen = parse(text_of(cluster([("worker", 0, "a:1"), ("evaluator", 0, "e:1")])).join(around("evaluator", 0)))
    assert seen.cluster == {"worker": {0: "a:1"}}
    assert seen.task == Task("evaluator", 0)
    assert lint(seen) == ()


@pytest.mark.tensorflow
def test_tensorflow_reads_what_is_rendered() -> None:
    pytest.importorskip("tensorflow")
    script = """
import os, sys
import tensorflow as tf
from tensorflow.python.distribute import multi_worker_util as util
for text in sys.argv[1:]:
    os.environ["TF_CONFIG"] = text
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    place = resolver.cluster_spec(), resolver.task_type, resolver.task_id
    print(sorted(place[0].jobs), *place[1:], util.is_chief(*place))
"""
    jobs = cluster([("worker", 0, "a:1"), ("worker", 1, "b:1"), ("evaluator", 0, "e:1")])
    texts = [text_of(jobs).join(around(job, index)) for job, index in (("worker", 0), ("worker", 1), ("evaluator", 0))]
    done = subprocess.run(
        [sys.executable, "-c", script, *texts],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "['worker'] worker 0 True",
        "['worker'] worker 1 False",
        "['worker'] evaluator 0 True",
    ]


# Parsing


def test_all_parts_are_kept() -> None:
    seen = config({"worker": ["a:1"], "ps": {"10": "q:1", "2": "p:1"}}, {"type": "ps", "index": 2}, environment="cloud")
    assert seen.cluster == {"worker": {0: "a:1"}, "ps": {2: "p:1", 10: "q:1"}}
    assert list(seen.cluster["ps"]) == [2, 10]
    assert seen.task == Task("ps", 2)
    assert seen.other == {"environment": "cloud"}
    assert seen.address("ps", 2) == "p:1"
    assert seen.address("ps", 0) is None
    assert seen.address("chief", 0) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"cluster": {},\n "task"}', "here: line 2, column 8: not JSON: Expecting ':' delimiter"),
        ("{'cluster': {}}", "here: line 1, column 2: not JSON: Expecting property name enclosed in double quotes"),
        ("", "here: line 1, column 1: not JSON: Expecting value"),
        ("[" * 100_000, "here: not a TF_CONFIG: nested too deeply"),
        ('{"cluster": {"worker": [], "worker": []}}', 'here: the key "worker" stands twice'),
        ("[]", "here: $: must be an object, not a list"),
        ("null", "here: $: must be an object, not null"),
        ('{"cluster": []}', "here: $.cluster: must be an object, not a list"),
        ('{"cluster": {"worker": "a:1"}}', 'here: $.cluster.worker: must be a list of "host:port", not "a:1"'),
        (
            '{"cluster": {"worker": {"x": "a:1"}}}',
            'here: $.cluster.worker: must be a list of "host:port", not an object',
        ),
        ('{"cluster": {"worker": ["a:1", 2]}}', "here: $.cluster.worker[1]: must be a string, not 2"),
        ('{"cluster": {"worker": {"3": true}}}', "here: $.cluster.worker[3]: must be a string, not true"),
        (r'{"cluster": {"worker": ["\u001b[2J:1"]}}', "cannot be printed"),
        (r'{"cluster": {"\ud800": []}}', r'here: $.cluster: "\ud800" holds a character that cannot be printed'),
        ('{"task": null}', "here: $.task: must be an object, not null"),
        ('{"task": {"index": 0}}', 'here: $.task: there is no "type"'),
        ('{"task": {"type": "worker"}}', 'here: $.task: there is no "index"'),
        ('{"task": {"type": 1, "index": 0}}', "here: $.task.type: must be a string, not 1"),
        ('{"task": {"type": "worker", "index": 1.5}}', "here: $.task.index: must be a whole number, not 1.5"),
        ('{"task": {"type": "worker", "index": true}}', "here: $.task.index: must be a whole number, not true"),
        ('{"task": {"type": "worker", "index": "one"}}', 'here: $.task.index: must be a whole number, not "one"'),
        ('{"task": {"type": "worker", "index": null}}', "here: $.task.index: must be a whole number, not null"),
    ],
)
def test_a_wrong_shape_is_named_with_its_place(text: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(text, "here")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# Addresses


@pytest.mark.parametrize(
    ("address", "host", "port", "own"),
    [
        ("a.example.com:2222", "a.example.com", 2222, False),
        ("Worker_0:1", "worker_0", 1, False),
        ("10.0.0.1:65535", "10.0.0.1", 65535, False),
        ("[fe80::1%eth0]:80", "[fe80::1%eth0]", 80, False),
        ("LocalHost:1", "localhost", 1, True),
        ("127.0.1.1:1", "127.0.1.1", 1, True),
        ("[::1]:1", "[::1]", 1, True),
        ("0.0.0.0:1", "0.0.0.0", 1, True),  # noqa: S104 - an address in a text
    ],
)
def test_an_address_is_taken_apart(address: str, host: str, port: int, own: bool) -> None:
    assert endpoint(address) == Endpoint(host, port)
    assert endpoint(address).own is own
    assert str(endpoint(address)) == address.lower()


@pytest.mark.parametrize(
    ("address", "message", "hint"),
    [
        ("http://a:1/x", "an address has no scheme", "write a:1"),
        ("a", "there is no port", "write a:PORT"),
        ("[::1]", "there is no port", "write [::1]:PORT"),
        ("", "there is no port", "write :PORT"),
        ("::1:80", "an IPv6 address stands in brackets", "write [::1]:80"),
        (":80", "there is no host", "write HOST:PORT"),
        ("a b:80", "this is no host name", "write HOST:PORT"),
        ("me@a:80", "this is no host name", "write HOST:PORT"),
        ("a:http", "the port is not a number", "write a:PORT, with a number from 1 to 65535"),
        ("a:", "the port is not a number", "write a:PORT, with a number from 1 to 65535"),
        ("a:²", "the port is not a number", "write a:PORT, with a number from 1 to 65535"),
        ("a:0", "the port is out of range", "choose one from 1 to 65535"),
        ("a:65536", "the port is out of range", "choose one from 1 to 65535"),
        ("a:" + "9" * 5000, "the port is out of range", "choose one from 1 to 65535"),
    ],
)
def test_a_bad_address_is_found_with_its_place(address: str, message: str, hint: str) -> None:
    [finding] = lint(config({"worker": ["a:2222", address]}))
    assert finding == Finding("$.cluster.worker[1]", f"{json.dumps(address)}: {message}", hint, "error")


@pytest.mark.parametrize("own", ["localhost:1", "127.0.0.1:1", "[::1]:1", "0.0.0.0:1"])
def test_a_machine_that_means_itself_has_no_place_among_several(own: str) -> None:
    host = own.removesuffix(":1")
    message = f"every machine means itself by {host}, and this cluster has several"
    assert found({"worker": ["b:1", own]}) == [("error", "$.cluster.worker[1]", message)]
    assert found({"worker": [own, "localhost:2"]}) == []


def test_an_address_is_used_once() -> None:
    assert found({"chief": ["a:1"], "worker": ["A:1", "a:2"]}) == [
        ("error", "$.cluster.worker[0]", "a:1 is the address of $.cluster.chief[0] too")
    ]
    assert found({"worker": ["localhost:1", "127.0.0.1:1"]}) == [
        ("error", "$.cluster.worker[1]", "127.0.0.1:1 is the address of $.cluster.worker[0] too")
    ]


# Jobs


@pytest.mark.parametrize("jobs", [{}, {"worker": []}])
def test_a_cluster_with_nobody_in_it_is_an_error(jobs: object) -> None:
    assert ("error", "$.cluster", "there is no cluster: every process would train alone") in found(jobs)


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ('{"clsuter": {}}', "cluster", 'is "clsuter" meant to be "cluster"?'),
        ('{"tasks": {}}', "task", 'is "tasks" meant to be "task"?'),
        ("{}", "cluster", 'add "cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}'),
        ("{}", "task", 'add "task": {"type": "worker", "index": 0}'),
    ],
)
def test_a_missing_part_is_asked_for(text: str, key: str, hint: str) -> None:
    assert [each.hint for each in lint(parse(text)) if each.path == f"$.{key}"] == [hint]


@pytest.mark.parametrize(
    ("job", "hint"),
    [
        ("wroker", "did you mean worker?"),
        ("WORKER", "did you mean worker?"),
        ("evalutor", "did you mean evaluator?"),
        ("Master", "master is the old name of chief"),
        ("master", "master is the old name of chief"),
        ("banana", "it knows chief, worker, ps, evaluator"),
    ],
)
def test_a_misspelt_name_is_found_as_job_and_as_task(job: str, hint: str) -> None:
    jobs, task = {job: ["a:1"]}, {"type": job, "index": 0}
    assert found(jobs, task) == [
        ("error", f"$.cluster.{job}", f'TensorFlow knows no job "{job}"'),
        ("error", "$.task.type", f'TensorFlow knows no task type "{job}"'),
    ]
    assert hints(jobs, task) == [hint, hint]


def test_beside_a_misspelt_job_nothing_is_said_of_the_ones_that_seem_to_be_missing() -> None:
    jobs = {"chief": ["c:1"], "wroker": ["a:1"]}
    paths = [path for _, path, _ in found(jobs, {"type": "chief", "index": 0})]
    assert paths == ["$.cluster.wroker"]


@pytest.mark.parametrize(
    ("jobs", "severity", "path", "message"),
    [
        ({**PAIR, "ps": []}, "error", "$.cluster.ps", "the job lists no address"),
        ({**PAIR, "chief": []}, "error", "$.cluster.chief", "the job lists no address"),
        ({**PAIR, "evaluator": []}, "warning", "$.cluster.evaluator", "the job lists no address"),
        ({"worker": {"0": "a:1", "2": "b:1"}}, "warning", "$.cluster.worker", "indices are left out"),
        ({**PAIR, "chief": ["c:1", "d:1"]}, "error", "$.cluster.chief", "a cluster has one chief, not 2"),
        ({**PAIR, "ps": ["p:1"]}, "warning", "$.cluster", "no chief to coordinate them"),
        ({**PAIR, "evaluator": ["e:1"]}, "warning", "$.cluster.evaluator", "no part of the cluster"),
    ],
)
def test_what_is_wrong_with_a_job(jobs: object, severity: str, path: str, message: str) -> None:
    [(its_severity, its_path, its_message)] = found(jobs)
    assert (its_severity, its_path) == (severity, path)
    assert message in its_message


@pytest.mark.parametrize(("more", "severity"), [({}, "warning"), ({"ps": ["p:1"]}, "error")])
def test_a_chief_without_workers_trains_alone_and_cannot_coordinate(more: dict[str, object], severity: str) -> None:
    found_here = found({"chief": ["c:1"], **more}, {"type": "chief", "index": 0})
    assert found_here == [(severity, "$.cluster", "there is a chief and no worker")]


def test_an_evaluator_that_is_listed_blocks_parameter_servers() -> None:
    jobs = {"chief": ["c:1"], "worker": ["a:1"], "ps": ["p:1"], "evaluator": ["e:1"]}
    assert [(severity, path) for severity, path, _ in found(jobs)] == [("error", "$.cluster.evaluator")]


# The task


@pytest.mark.parametrize(
    ("task", "message", "hint"),
    [
        ({"type": "worker", "index": 2}, "there is no worker 2", "the cluster lists worker 0, worker 1"),
        ({"type": "worker", "index": -1}, "there is no worker -1", "the cluster lists worker 0, worker 1"),
        ({"type": "ps", "index": 0}, "the cluster has no ps", "it lists worker"),
        ({"type": "evaluator", "index": 1}, "TensorFlow knows one evaluator", "write 0"),
        (
            {"type": "worker", "index": "1"},
            'the index is the string "1": TensorFlow takes it, other programs do not',
            "write 1",
        ),
    ],
)
def test_what_is_wrong_with_the_task(task: object, message: str, hint: str) -> None:
    [finding] = lint(config(PAIR, task))
    assert (finding.message, finding.hint) == (message, hint)


def test_only_what_tensorflow_refuses_of_a_task_is_an_error() -> None:
    severities = {
        index: [each.severity for each in lint(config(PAIR, {"type": "worker", "index": index}))]
        for index in (0, "0", 2, "2")
    }
    assert severities == {0: [], "0": ["warning"], 2: ["error"], "2": ["warning", "error"]}


def test_a_long_list_of_tasks_is_cut_short() -> None:
    jobs = {"worker": [f"host{i}:1" for i in range(64)]}
    assert hints(jobs, {"type": "worker", "index": 64}) == [
        "the cluster lists worker 0, worker 1, worker 2, worker 3 ..."
    ]


def test_a_task_that_is_missing_is_an_error() -> None:
    [finding] = lint(parse(json.dumps({"cluster": PAIR})))
    assert (finding.severity, finding.path) == ("error", "$.task")


@pytest.mark.parametrize(("listening", "count"), [(None, 0), (frozenset({2222, 80}), 0), (frozenset({80}), 1)])
def test_a_port_that_nothing_listens_on_is_mentioned(listening: frozenset[int] | None, count: int) -> None:
    findings = lint(config(PAIR), listening=listening)
    assert [(each.severity, each.path) for each in findings] == [("warning", "$.task")] * count
    assert all("port 2222 of this machine" in each.message for each in findings)


def test_an_unreadable_address_is_not_held_against_the_listening_ports() -> None:
    assert len(lint(config({"worker": ["a"]}), listening=frozenset())) == 1


@pytest.mark.parametrize(
    ("layer", "messages"),
    [
        ("grpc", []),
        (None, []),
        ("grpc+verbs", ['TensorFlow as it is published speaks grpc, not "grpc+verbs"']),
        ({}, ["TensorFlow as it is published speaks grpc, not {}"]),
    ],
)
def test_an_rpc_layer_that_nobody_has_is_an_error(layer: object, messages: list[str]) -> None:
    assert found(PAIR, rpc_layer=layer) == [("error", "$.rpc_layer", message) for message in messages]


@pytest.mark.parametrize(
    ("jobs", "task"),
    [
        (PAIR, {"type": "worker", "index": 1}),
        (PAIR, {"type": "evaluator", "index": 0}),
        ({"chief": ["c:1"], **PAIR}, {"type": "chief", "index": 0}),
        ({"chief": ["c:1"], **PAIR, "ps": ["p:1"]}, {"type": "ps", "index": 0}),
        ({"worker": ["[2001:db8::1]:2222", "[2001:db8::2]:2222"]}, WORKER_0),
    ],
)
def test_nothing_is_found_where_nothing_is_wrong(jobs: object, task: object) -> None:
    assert found(jobs, task, environment="cloud") == []
