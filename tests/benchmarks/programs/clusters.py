"""clusters.py WORKERS ROUNDS: forms a cluster again and again, as tests do, and prints the seconds of each on a line.

The line has the first cluster's, then the median of the others: those find an agent and a fork server at work. A third
figure is the median of clusters whose workers import TensorFlow themselves.
"""

import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from launcher.testing import Clusters


def all_reduce() -> float:
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()

    def one() -> tf.Tensor:
        return tf.distribute.get_replica_context().all_reduce("SUM", tf.constant(1.0))

    summed = tf.function(lambda: strategy.run(one))()
    return float(strategy.experimental_local_results(summed)[0])


def seconds(clusters: Clusters, workers: int, *, warm: bool) -> float:
    started = time.monotonic()
    results = clusters(workers, warm=warm).run(all_reduce)
    if results != [float(workers)] * workers:
        raise SystemExit(f"summed up to {results}")
    return time.monotonic() - started


workers, rounds = map(int, sys.argv[1:])
with TemporaryDirectory() as folder, Clusters(Path(folder)) as clusters:
    first, *others = (seconds(clusters, workers, warm=True) for _ in range(rounds + 1))
    cold = [seconds(clusters, workers, warm=False) for _ in range(2)]
    print(first, median(others), median(cold))
