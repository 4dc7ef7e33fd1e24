"""Clusters for tests: a function in several real processes under a real TF_CONFIG, and faults to order.

pytest has them through the fixture ``tf_cluster`` (``launcher/pytest_plugin.py``); here nothing knows of pytest.
"""

from __future__ import annotations

from launcher.testing.cluster import Cluster, Clusters
from launcher.testing.ended import Ended, TaskFailed, Unprivileged
from launcher.testing.under_way import UnderWay

__all__ = ["Cluster", "Clusters", "Ended", "TaskFailed", "UnderWay", "Unprivileged"]
