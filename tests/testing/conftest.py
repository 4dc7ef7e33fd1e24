from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from launcher.testing import Clusters

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def clusters(tmp_path: Path) -> Iterator[Clusters]:
    """Makes clusters, by agents of their own."""
    with Clusters(tmp_path) as made:
        yield made
