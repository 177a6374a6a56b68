"""Asks from many processes and machines, with Ray Data."""

from __future__ import annotations

import logging
import math
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _judges import Judge
from _quality_run import Answer, Run, run_here
from _steps import StepError

from synthchex_75k import SourceError

MAX_BLOCKS = 2000


def run_with_ray(run: Run, make: Callable[[], Judge], workers: int) -> Iterator[Answer]:
    """Asks from workers of Ray: a cluster's if RAY_ADDRESS names one, else of this machine.

    Each worker reads its images itself, so that the source and this repository must be where it runs. If one dies, Ray
    starts another and asks again about what it had in hand.

    Args:
        run: What is asked.
        make: Makes the judge, once in each worker.
        workers: How many.

    Yields:
        The answers, as they come.

    Raises:
        StepError: Ray is missing, or no image will get an answer.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise StepError(f"this takes Ray: pip install 'ray[data]' ({error})") from error
    here = Path(__file__).resolve().parent
    paths = os.pathsep.join([str(here), str(here.parent), os.getcwd()])
    ray.init(log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": {"PYTHONPATH": paths}})
    ray.data.DataContext.get_current().enable_progress_bars = False  # there is one here
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        size = _in_hand(make())
        batches = math.ceil(len(run.rows) / size)
        rows = ray.data.from_items(
            [{"row": pickle.dumps(row)} for row in run.rows], override_num_blocks=min(batches, MAX_BLOCKS)
        )
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        asked = rows.map_batches(
            Worker,
            fn_constructor_args=(make, run._replace(rows=[])),
            batch_size=size,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_gpus=gpus,
            num_cpus=1 if gpus == 0 else 0,
        )
        for answered in asked.iter_rows():
            answer = pickle.loads(answered["answer"])
            if isinstance(answer, Exception):
                raise answer
            yield answer
    finally:
        ray.shutdown()


class Worker:
    """A process that asks; it makes its judge once."""

    def __init__(self, make: Callable[[], Judge], run: Run) -> None:
        self._run = run
        try:
            self._judge: Judge | Exception = make()
        except StepError as error:  # which would be raised again and again
            self._judge = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Asks about a batch of pickled rows; returns pickled answers, and an error that ends it all."""
        rows = [pickle.loads(row) for row in batch["row"]]
        answers: list[Answer | Exception] = []
        try:
            if isinstance(self._judge, Exception):
                raise self._judge
            answers.extend(run_here(self._run._replace(rows=rows), self._judge))
        except (StepError, SourceError, OSError) as error:
            answers.append(StepError(f"{type(error).__name__}: {error}"))
        return {"answer": [pickle.dumps(answer) for answer in answers]}


def _in_hand(judge: Judge) -> int:
    return judge.batch_size * judge.concurrency
