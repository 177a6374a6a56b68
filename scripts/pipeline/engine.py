"""A model over items, in this process or in worker processes of Ray Data; the step that asks the model does not know.

A step gives a `Task`, which loads the model and asks it about items. Locally both happen in this process. With Ray, the
task is sent to the workers, each of which loads a model of its own, on this machine or on those of a cluster.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import logging
import math
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import StepError
from synthchex_75k import SourceError

ENGINES = ("local", "ray")
SCRIPTS = Path(__file__).resolve().parents[1]
MAX_BLOCKS = 2000

Ask = Callable[[list[Any]], Iterator[Any]]  # from items to results


class Task(Protocol):
    """What a model is asked, as a value that can be pickled, as the items and the results can."""

    @property
    def items_at_once(self) -> int:
        """How many items a worker of Ray gets at once; if it dies, they are asked about again."""

    def load(self) -> Ask:
        """Loads the model, and returns the function that asks it about items and yields results.

        Raises:
            StepError: It cannot be loaded. The function raises it, SourceError or OSError, where the run must end.
        """


def check_engine(engine: str) -> None:
    """Checks that an engine is installed.

    Args:
        engine: One of `ENGINES`.

    Raises:
        StepError: It is not.
    """
    if engine == "ray" and not importlib.util.find_spec("ray"):
        raise StepError("--engine ray needs Ray: pip install 'ray[data]', or the extra [ray]")


def start_engine(task: Task, engine: str, workers: int) -> Ask:
    """Returns a function that asks about items.

    Args:
        task: The task. Its model is loaded now, or with Ray by each worker.
        engine: One of `ENGINES`.
        workers: Number of Ray's workers.

    Raises:
        StepError: The model cannot be loaded.
    """
    if engine == "local":
        return task.load()
    return lambda items: _run_with_ray(task, items, workers)


def _run_with_ray(task: Task, items: list[Any], workers: int) -> Iterator[Any]:
    """Asks from workers of Ray: of a cluster if RAY_ADDRESS names one, else of this machine.

    Files that the items name are read by the workers, so they and this repository must be at the same path on their
    machines. If a worker dies, Ray starts another one.
    """
    import ray
    import ray.data

    paths = os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent), os.getcwd()])
    ray.init(log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": {"PYTHONPATH": paths}})
    ray.data.DataContext.get_current().enable_progress_bars = False  # this program shows one
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        size = task.items_at_once
        blocks = min(math.ceil(len(items) / size), MAX_BLOCKS)
        pickled = ray.data.from_items([{"item": pickle.dumps(item)} for item in items], override_num_blocks=blocks)
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        asked = pickled.map_batches(
            RayWorker,
            fn_constructor_args=(task,),
            batch_size=size,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_gpus=gpus,
            num_cpus=1 if gpus == 0 else 0,
        )
        batches = asked.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        with contextlib.closing(iter(batches)) as batches:
            for pickled_result in itertools.chain.from_iterable(batch["result"].to_pylist() for batch in batches):
                result = pickle.loads(pickled_result)
                if isinstance(result, Exception):
                    raise result
                yield result
    finally:
        # If a thread of Ray Data asks Ray after its end, Ray ends this process at once, without a message.
        for thread in threading.enumerate():
            if thread.name.startswith(("iter_", "StreamingExecutor")):
                thread.join(10)
        ray.shutdown()


class RayWorker:
    """A process of Ray that loads the model once."""

    def __init__(self, task: Task) -> None:
        try:
            self._ask: Ask | Exception = task.load()
        except StepError as error:  # Ray would restart the worker again and again
            self._ask = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Asks about a batch of pickled items; returns pickled results, and an error that ends the run."""
        results: list[Any] = []
        try:
            if isinstance(self._ask, Exception):
                raise self._ask
            results.extend(self._ask([pickle.loads(item) for item in batch["item"]]))
        except (StepError, SourceError) as error:
            results.append(error)
        except OSError as error:
            results.append(StepError(f"{type(error).__name__}: {error}"))
        return {"result": [pickle.dumps(result) for result in results]}
