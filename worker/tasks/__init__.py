"""Ready-made trainings: each module holds one ``worker.task.Task`` under the name ``TASK``."""

NAMES = ("digits", "linear", "mnist")
