"""Asks a model from many processes and machines, with Ray Data."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import StepError
from pipeline.quality.ask import BatchResult, Run, ask_locally
from pipeline.quality.judges import Judge, JudgeOptions
from synthchex_75k import SourceError

SCRIPTS = Path(__file__).resolve().parents[2]
MAX_BLOCKS = 2000


def require_ray() -> None:
    """Checks that Ray is installed.

    Raises:
        StepError: It is not.
    """
    if not importlib.util.find_spec("ray"):
        raise StepError("--engine ray needs Ray: pip install 'ray[data]', or the extra [ray]")


def ask_with_ray(run: Run, judge: JudgeOptions, workers: int) -> Iterator[BatchResult]:
    """Asks from workers of Ray: of a cluster if RAY_ADDRESS names one, else of this machine.

    Each worker reads its images itself, so the source and this repository must be at the same path on its machine. If a
    worker dies, Ray starts another one, which asks again about the images that the first one was asking about.

    Args:
        run: The questions.
        judge: The judge to make, once in each worker.
        workers: Number of workers.

    Yields:
        The results, as they come.

    Raises:
        StepError: No image will get an answer.
    """
    import ray
    import ray.data

    paths = os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent), os.getcwd()])
    ray.init(log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": {"PYTHONPATH": paths}})
    ray.data.DataContext.get_current().enable_progress_bars = False  # this program shows one
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        size = judge.images_at_once
        blocks = min(math.ceil(len(run.rows) / size), MAX_BLOCKS)
        rows = ray.data.from_items([{"row": pickle.dumps(row)} for row in run.rows], override_num_blocks=blocks)
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        asked = rows.map_batches(
            Worker,
            fn_constructor_args=(judge, run._replace(rows=[])),
            batch_size=size,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_gpus=gpus,
            num_cpus=1 if gpus == 0 else 0,
        )
        for row in asked.iter_rows():
            result = pickle.loads(row["result"])
            if isinstance(result, Exception):
                raise result
            yield result
    finally:
        ray.shutdown()


class Worker:
    """A process that asks; it makes its judge once."""

    def __init__(self, judge: JudgeOptions, run: Run) -> None:
        self._run = run
        try:
            self._judge: Judge | Exception = judge.make()
        except StepError as error:  # Ray would restart the worker again and again
            self._judge = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Asks about a batch of pickled rows; returns pickled results, and an error that ends the run."""
        rows = [pickle.loads(row) for row in batch["row"]]
        results: list[BatchResult | Exception] = []
        try:
            if isinstance(self._judge, Exception):
                raise self._judge
            results.extend(ask_locally(self._run._replace(rows=rows), self._judge))
        except (StepError, SourceError) as error:
            results.append(error)
        except OSError as error:
            results.append(StepError(f"{type(error).__name__}: {error}"))
        return {"result": [pickle.dumps(result) for result in results]}
