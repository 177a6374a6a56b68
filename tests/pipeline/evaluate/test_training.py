"""What a training draws, and by what it chooses weights: without torch."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluate.utility.training import Recipe, batch_of, macro_auroc


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 5), st.integers(1, 4))
def test_each_epoch_has_each_image_once(count: int, batch_size: int, seed: int, epochs: int) -> None:
    steps = math.ceil(epochs * count / batch_size)
    recipe = Recipe(steps, batch_size, 1e-4, 1, False, seed)
    batches = [batch_of(step, count, recipe)[0] for step in range(steps)]
    assert {len(batch) for batch in batches} == {batch_size}
    drawn = np.concatenate(batches).tolist()
    assert all({*drawn[epoch * count : (epoch + 1) * count]} == {*range(count)} for epoch in range(epochs))
    assert {*Counter(drawn).values()} <= {*range(epochs, epochs + math.ceil(batch_size / count) + 1)}


@given(st.integers(0, 50), st.booleans())
def test_a_batch_depends_on_its_step_alone(step: int, flips: bool) -> None:
    recipe = Recipe(100, 7, 1e-4, 1, flips, 3)
    first = batch_of(step, 20, recipe)
    batch_of(50 - step, 20, recipe)
    assert all(np.array_equal(one, other) for one, other in zip(first, batch_of(step, 20, recipe)))


def test_seeds_draw_other_batches() -> None:
    batches = [batch_of(0, 1000, Recipe(1, 32, 1e-4, 1, False, seed))[0].tolist() for seed in range(3)]
    assert len({*map(tuple, batches)}) == 3


@given(st.integers(0, 2**32 - 1))
def test_the_macro_auroc_is_the_mean_share_of_pairs_in_order(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, 4, (12, 3)).astype(float)  # with ties
    targets = random.choice([0, 1, np.nan], (12, 3))
    shares = []
    for of_label, target in zip(scores.T, targets.T):
        pairs = [(a > b) + (a == b) / 2 for a in of_label[target == 1] for b in of_label[target == 0]]
        shares += [np.mean(pairs)] if pairs else []
    found = macro_auroc(scores, targets)
    assert found == pytest.approx(np.mean(shares)) if shares else math.isnan(found)
