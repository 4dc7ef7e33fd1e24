"""ray_train.py COPIES SCRIPT ARGUMENT...: runs a script in as many workers of Ray Train's TensorflowTrainer.

Ray is started for it on this machine, with what the workers need and nothing to look at.
"""

import os
import sys
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Or a token is made, in the home directory.
os.environ["RAY_AUTH_MODE"] = "disabled"
# Its workers would have a lower priority than everybody else's.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's spelling

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.tensorflow import TensorflowTrainer

copies, *command = sys.argv[1:]


def work(command: list[str]) -> None:
    import runpy
    import sys

    sys.argv[:] = command
    runpy.run_path(command[0], run_name="__main__")


ray.init(
    num_cpus=int(copies),
    include_dashboard=False,
    log_to_driver=False,
    object_store_memory=80 * 2**20,
    _temp_dir=str(Path.cwd() / "ray"),
)
trainer = TensorflowTrainer(
    lambda: work(command),
    scaling_config=ScalingConfig(num_workers=int(copies)),
    run_config=RunConfig(storage_path=str(Path.cwd() / "results")),
)
trainer.fit()
