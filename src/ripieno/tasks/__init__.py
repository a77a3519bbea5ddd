"""Tasks from files: graded tasks as JSON lines, routing data as parquet folders."""

from ripieno.tasks.files import read_tasks, write_tasks
from ripieno.tasks.folder import Model, Prompt, RoutingData, keep_models, read_folder, write_folder
from ripieno.tasks.training import make_training_set, split_repeats

__all__ = [
    "Model",
    "Prompt",
    "RoutingData",
    "keep_models",
    "make_training_set",
    "read_folder",
    "read_tasks",
    "split_repeats",
    "write_folder",
    "write_tasks",
]
