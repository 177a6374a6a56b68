"""Asks slow questions with Ray, the first of which fails; prints which threads still use Ray when it is shut down."""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "scripts"), str(Path(__file__).resolve().parents[1])]

from pipeline.engine import start_engine  # noqa: E402
from pipeline.errors import StepError  # noqa: E402


class SlowTask:
    """A task of one item at once, of which the first raises an error and each other takes a second."""

    items_at_once = 1

    def load(self) -> "SlowTask":
        return self

    def __call__(self, items: list[int]) -> Iterator[int]:
        for item in items:
            if item == 0:
                raise StepError("the first item")
            time.sleep(1)
            yield item


if __name__ == "__main__":
    import ray

    shutdown = ray.shutdown

    def look() -> None:
        print([thread.name for thread in threading.enumerate() if thread.name.startswith(("Streaming", "iter_"))])
        shutdown()

    ray.shutdown = look
    from ray_shutdown import SlowTask as Task  # under a name that the workers can import

    try:
        list(start_engine(Task(), "ray", 1)([*range(30)]))
    except StepError as error:
        print(error)
