"""Fine-tunes a network on images with labels, with `accelerate`: on one device, or on several processes.

Everything that is drawn depends on the seed and the number of the step alone: which images a batch has, which of them
are mirrored, what dropout drops. So a resumed training takes the steps that it would have taken, and several processes
share the batches that one would have had.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import StepError
from pipeline.evaluate.metrics.auroc import mid_ranks
from pipeline.evaluate.utility.decoded import DecodedImages
from pipeline.files import filename_in_errors, fsync, remove_on_error, rename, temporary_path
from pipeline.progress import progress_bar

WEIGHT_DECAY = 0.05  # of matrices; none of biases and norms
WARM_UP = 0.05  # share of the steps in which the learning rate rises
MAX_NORM = 1.0  # of the gradient
SAVE_INTERVAL = 600  # seconds of work that an interruption may lose
SHOW_INTERVAL = 1.0  # seconds between looks at the loss, for which a GPU has to finish its queue
ORDER, MIRRORED, DROPPED = range(3)  # what is drawn


class Labelled(NamedTuple):
    """Images and what to find in them.

    Attributes:
        images: The decoded images.
        places: Which of them.
        targets: 1, 0 or NaN (unknown), float32 of shape (images, labels).
    """

    images: DecodedImages
    places: Sequence[tuple[int, int]]
    targets: np.ndarray


class Recipe(NamedTuple):
    """How to train.

    Attributes:
        steps: Number of steps of the optimiser.
        batch_size: Images of a step, over all processes.
        learning_rate: The highest; it rises linearly, then falls to 0 as a cosine.
        validate_every: Steps between validations; there is one after the last step too.
        horizontal_flips: Whether to mirror a half of the images.
        seed: Of everything that is drawn.
    """

    steps: int
    batch_size: int
    learning_rate: float
    validate_every: int
    horizontal_flips: bool
    seed: int


class Validation(NamedTuple):
    """What a validation found: after how many steps, the macro AUROC, and the loss of training since the last one."""

    step: int
    auroc: float
    loss: float


class Trainer:
    """A network on its device.

    Args:
        accelerator: Of `accelerate`.
        network: A network that takes images, float32 of shape (batch, channels, height, width), and returns a number
            for each label; it has its first weights.
        mean: What to take from the values, which are 0 to 1, of each channel.
        std: What to divide them by then.
        recipe: How to train.
    """

    def __init__(
        self, accelerator: Any, network: Any, mean: Sequence[float], std: Sequence[float], recipe: Recipe
    ) -> None:
        import timm.layers
        import timm.optim
        import torch

        self._accelerator, self._recipe = accelerator, recipe
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":  # torch has it for GPUs only
            # Batch statistics of all processes, so that results do not depend on their number.
            network = timm.layers.convert_sync_batchnorm(network)
        network = network.to(memory_format=torch.channels_last)
        optimizer = timm.optim.create_optimizer_v2(network, "adamw", lr=recipe.learning_rate, weight_decay=WEIGHT_DECAY)
        self._wrapped, self._optimizer = accelerator.prepare(network, optimizer)
        self._network = accelerator.unwrap_model(self._wrapped)
        self._mean, self._std = (
            torch.tensor(values, device=accelerator.device).view(1, -1, 1, 1) for values in (mean, std)
        )
        self._history: list[Validation] = []
        self._losses: list[Any] = []  # of the steps since the last validation, on the device
        self._best: dict[str, Any] = {}

    def train(self, train: Labelled, validation: Labelled, checkpoint: Path, title: str) -> list[Validation]:
        """Trains, and takes the weights of the best validation.

        Args:
            train: Images to train on.
            validation: Images to choose the weights with.
            checkpoint: File of the state of this training; it is resumed if the file exists.
            title: Text before the progress bar.

        Returns:
            All validations; the best one has the highest macro AUROC, and is the first of those.

        Raises:
            StepError: The loss or a score is not finite.
            OSError: The checkpoint cannot be read or written.
        """
        step = self._resume(checkpoint)
        self._network.train()
        is_main = self._accelerator.is_main_process
        saved = shown = time.monotonic()
        with progress_bar(title, self._recipe.steps, "step", initial=step, disable=not is_main) as bar:
            for images, targets, known in self._batches(train, step):
                self._losses.append(self._step(step, images, targets, known))
                step += 1
                if time.monotonic() - shown > SHOW_INTERVAL:
                    self._show(bar)
                    shown = time.monotonic()
                bar.update()
                is_due = step % self._recipe.validate_every == 0 or step == self._recipe.steps
                if is_due:
                    self._validate(step, validation, self._show(bar))
                if is_main and (is_due or time.monotonic() - saved > SAVE_INTERVAL):
                    self._save(checkpoint, step)
                    saved = time.monotonic()
        self._network.load_state_dict(self._best)
        return self._history

    def score(self, data: Labelled) -> np.ndarray:
        """Returns the outputs of the network, in each process: float32 of shape (images, labels)."""
        import accelerate.utils
        import torch

        processes, process = self._accelerator.num_processes, self._accelerator.process_index
        count = len(data.places)
        if processes > 1:
            for buffer in self._network.buffers():  # such as means of batches, which each process has of its own
                accelerate.utils.broadcast(buffer)
        # Each process has as many images; the last ones are there twice.
        own = np.minimum(np.arange(math.ceil(count / processes)) * processes + process, count - 1)
        size = self._recipe.batch_size // processes
        self._network.eval()
        with torch.inference_mode():
            parts = [
                self._network(self._on_device(data.images.read([data.places[number] for number in part]))).float()
                for part in np.split(own, range(size, len(own), size))
            ]
            gathered = self._accelerator.gather(torch.cat(parts)).cpu().numpy()
        self._network.train()
        in_order = gathered.reshape(processes, len(own), -1).swapaxes(0, 1)
        return in_order.reshape(processes * len(own), -1)[:count]

    def _step(self, step: int, images: Any, targets: Any, known: int) -> Any:
        """Takes a step, and returns its loss: the mean over all known labels of the batch."""
        import torch

        draw = np.random.SeedSequence([self._recipe.seed, DROPPED, step, self._accelerator.process_index])
        torch.manual_seed(int(draw.generate_state(1)[0]))
        factor = _schedule(step, self._recipe.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = self._recipe.learning_rate * factor
        targets = targets.to(self._accelerator.device, non_blocking=True)
        outputs = self._wrapped(self._on_device(images)).float()
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            outputs, targets.nan_to_num(), weight=(~targets.isnan()).float(), reduction="sum"
        )
        # The gradient is the mean over the processes, which may know unequal numbers of labels.
        loss = losses * self._accelerator.num_processes / max(known, 1)
        self._optimizer.zero_grad()
        self._accelerator.backward(loss)
        self._accelerator.clip_grad_norm_(self._wrapped.parameters(), MAX_NORM)
        self._optimizer.step()
        return loss.detach()

    def _on_device(self, images: Any) -> Any:
        """Returns gray images of 8 bits as the network takes them."""
        import torch

        pixels = torch.as_tensor(images).to(self._accelerator.device, non_blocking=True)
        normal = (pixels.unsqueeze(1).float() / 255 - self._mean) / self._std
        return normal.contiguous(memory_format=torch.channels_last)

    def _batches(self, train: Labelled, first: int) -> Iterator[tuple[Any, Any, int]]:
        """Yields this process's part of each batch, and how many labels all of the batch knows.

        A thread reads the next part meanwhile.
        """
        import torch

        def read(step: int) -> tuple[Any, Any, int]:
            numbers, mirrored = batch_of(step, len(train.places), self._recipe)
            own = slice(self._accelerator.process_index, None, self._accelerator.num_processes)
            images = train.images.read([train.places[number] for number in numbers[own]])
            images[mirrored[own]] = images[mirrored[own], :, ::-1]
            known = int((~np.isnan(train.targets[numbers])).sum())
            tensors = torch.from_numpy(images), torch.from_numpy(train.targets[numbers[own]])
            if self._accelerator.device.type == "cuda":
                tensors = tensors[0].pin_memory(), tensors[1].pin_memory()
            return (*tensors, known)

        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(read, first)
            for step in range(first, self._recipe.steps):
                found = waiting.result()
                if step + 1 < self._recipe.steps:
                    waiting = thread.submit(read, step + 1)
                yield found

    def _show(self, bar: Any) -> float:
        """Shows the mean loss since the last validation, and returns it."""
        import torch

        loss = float(torch.stack(self._losses).mean())
        if not math.isfinite(loss):
            raise StepError(f"the loss is {loss} after {bar.n + 1:,} steps; choose a smaller --learning-rate")
        best = f", best AUROC {max(one.auroc for one in self._history):.4f}" if self._history else ""
        bar.set_postfix_str(f"loss {loss:.4f}{best}", refresh=False)
        return loss

    def _validate(self, step: int, data: Labelled, loss: float) -> None:
        scores = self.score(data)
        if not np.isfinite(scores).all():
            raise StepError(f"scores are not finite after {step:,} steps; choose a smaller --learning-rate")
        found = Validation(step, macro_auroc(scores, data.targets), loss)
        if all(found.auroc > one.auroc for one in self._history):
            state = self._network.state_dict().items()
            self._best = {name: value.detach().to("cpu", copy=True) for name, value in state}
        self._history.append(found)
        self._losses = []

    def _save(self, checkpoint: Path, step: int) -> None:
        import torch

        state = {
            "step": step,
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "best": self._best,
            "history": [tuple(one) for one in self._history],
            "losses": self._losses,
        }
        temporary = temporary_path(checkpoint)
        with remove_on_error(temporary), filename_in_errors(checkpoint):
            torch.save(state, temporary)
            fsync(temporary)
            rename(temporary, checkpoint)

    def _resume(self, checkpoint: Path) -> int:
        """Loads a checkpoint, if there is one, and returns after how many steps it was written."""
        import accelerate.utils
        import torch

        # The first process decides: another machine may see a file later.
        if not accelerate.utils.broadcast_object_list([checkpoint.exists()])[0]:
            return 0
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._best, self._history = state["best"], [Validation(*one) for one in state["history"]]
        self._losses = [loss.to(self._accelerator.device) for loss in state["losses"]]
        return int(state["step"])


def batch_of(step: int, count: int, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Returns the batch of a step.

    The images are shuffled again in each epoch. Batches are cut from the epochs one behind the other, so that all have
    the same size, also where there are fewer images than a batch has.

    Args:
        step: Its number, from 0.
        count: Number of images.
        recipe: How to train.

    Returns:
        The numbers of its images, and whether each is mirrored.

    Example:
        >>> recipe = Recipe(5, 4, 1e-4, 5, False, 0)
        >>> sorted(np.concatenate([batch_of(step, 10, recipe)[0] for step in range(5)]).tolist())
        [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]
    """
    epochs, places = np.divmod(np.arange(step * recipe.batch_size, (step + 1) * recipe.batch_size), count)
    numbers = np.array([_order(count, recipe.seed, int(epoch))[place] for epoch, place in zip(epochs, places)])
    random = np.random.default_rng([recipe.seed, MIRRORED, step])
    return numbers, recipe.horizontal_flips & (random.random(recipe.batch_size) < 0.5)


def macro_auroc(scores: np.ndarray, targets: np.ndarray) -> float:
    """Returns the mean AUROC over the labels that have positive and negative rows; NaN if there is none.

    Args:
        scores: Of shape (rows, labels).
        targets: 1, 0 or NaN, of the same shape.

    Example:
        >>> macro_auroc(np.array([[0.1, 0.2], [0.3, 0.2], [0.2, 0.2]]), np.array([[0, 0], [1, 0], [1, np.nan]]))
        1.0
    """
    found = []
    for of_label, target in zip(scores.T, targets.T):
        positives, negatives = int((target == 1).sum()), int((target == 0).sum())
        if positives and negatives:
            ranks = mid_ranks(of_label[~np.isnan(target)])[target[~np.isnan(target)] == 1]
            found.append((ranks.mean() - (positives + 1) / 2) / negatives)
    return float(np.mean(found)) if found else math.nan


@functools.lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, ORDER, epoch]).permutation(count)


def _schedule(step: int, steps: int) -> float:
    """Returns the learning rate of a step, as a share of the highest."""
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))) / 2
