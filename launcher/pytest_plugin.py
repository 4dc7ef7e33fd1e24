"""The pytest plugin: the fixture ``tf_cluster``, its marker, and what tasks print in the reports of tests that fail.

It is loaded by every pytest where tflaunch is installed: it imports what it needs when a test asks for a cluster.
"""

from __future__ import annotations

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.testing import Clusters
    from launcher.testing.crew import Crews

_MARKER = """\
tf_cluster(workers=2, *, chief=False, evaluator=0, ps=0, gpus=0, timeout=120, ...): \
what the fixture tf_cluster makes unless it is told otherwise"""

_clusters = pytest.StashKey["Clusters"]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture(scope="session")
def _tf_cluster_agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crews]:
    """The agents of this pytest process, which one test after another uses."""
    from launcher.testing.crew import Crews

    with Crews(tmp_path_factory.mktemp("tf_cluster_agents")) as crews:
        yield crews


@pytest.fixture
def tf_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, _tf_cluster_agents: Crews
) -> Iterator[Clusters]:
    """Makes clusters of real processes: ``tf_cluster(4).run(function)`` calls it in four workers, one TF_CONFIG each."""
    from launcher.testing import Clusters

    folder = tmp_path_factory.mktemp("tf_cluster")
    with Clusters(folder, _tf_cluster_agents, **_asked(request.node)) as clusters:
        request.node.stash[_clusters] = clusters
        yield clusters


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Have what the tasks printed be part of the report."""
    if _clusters in item.stash:
        for task, text in item.stash[_clusters].sections():
            item.add_report_section(call.when, task, text)


def _asked(node: pytest.Item) -> dict[str, object]:
    marker = node.get_closest_marker("tf_cluster")
    return {} if marker is None else _named(*marker.args, **marker.kwargs)


def _named(workers: int = 2, **others: object) -> dict[str, object]:
    return {"workers": workers, **others}
