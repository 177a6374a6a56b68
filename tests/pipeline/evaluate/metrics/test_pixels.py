"""Distances of pairs: known values, and what CheXGenBench's code would have returned."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate.metrics.pixels import latent_distance, pixel_distance, reid_score

GREY = st.integers(0, 255)


def flat(value: int) -> np.ndarray:
    return np.full((1, 12), value, np.uint8)


def test_black_against_white_is_255_and_two_grey_levels_are_2() -> None:
    assert pixel_distance(flat(0), flat(255)).tolist() == [255]
    assert pixel_distance(flat(255), flat(0)).tolist() == [255]
    assert pixel_distance(flat(100), flat(102)).tolist() == [2]
    assert pixel_distance(flat(102), flat(100)).tolist() == [2]


def test_noise_does_not_wrap_around() -> None:
    """The root mean square of independent uniform values is 104.5; that of differences modulo 256 is 147."""
    one, two = np.random.default_rng(0).integers(0, 256, (2, 1, 100_000), np.uint8)
    assert pixel_distance(one, two)[0] == pytest.approx(np.sqrt((256**2 - 1) / 6), rel=0.01)
    wrapped = (one - two).astype(float)
    assert np.sqrt((wrapped**2).mean()) == pytest.approx(147.4, rel=0.01)


@given(st.lists(st.tuples(GREY, GREY), min_size=1, max_size=20))
def test_pixel_distance_is_the_root_mean_square_in_whole_numbers(pixels: list[tuple[int, int]]) -> None:
    one, two = (np.array([side], np.uint8) for side in zip(*pixels))
    wanted = (sum((a - b) ** 2 for a, b in pixels) / len(pixels)) ** 0.5
    assert pixel_distance(one, two)[0] == pytest.approx(wanted, rel=1e-12)
    assert pixel_distance(one, two) == pixel_distance(two, one)


def test_each_pair_has_its_own_distance() -> None:
    one, two = np.array([[0, 0], [9, 9]], np.uint8), np.array([[3, 4], [9, 9]], np.uint8)
    assert pixel_distance(one, two).tolist() == [pytest.approx(12.5**0.5), 0]


def test_latent_distance_does_not_grow_with_the_width() -> None:
    for width in (2, 768):
        a = np.random.default_rng(0).normal(size=(5, width)).astype(np.float32)
        assert latent_distance(a, a + np.float32(0.5)) == pytest.approx(np.full(5, 0.5), rel=1e-5)
        assert latent_distance(a, np.roll(a, 1, 0)) == pytest.approx(
            np.linalg.norm(a - np.roll(a, 1, 0), axis=1) / width**0.5, rel=1e-6
        )


def test_the_score_is_the_sigmoid_of_a_linear_layer() -> None:
    a, b = np.random.default_rng(1).random((2, 4, 128))
    weight = np.random.default_rng(2).normal(size=128)
    wanted = 1 / (1 + np.exp(-(np.abs(a - b) @ weight - 0.3)))
    assert reid_score(a, b, weight, -0.3) == pytest.approx(wanted, rel=1e-12)
    assert (reid_score(a, b, weight, -0.3) == reid_score(b, a, weight, -0.3)).all()


def test_far_logits_are_finite() -> None:
    a, b = np.zeros((1, 2)), np.ones((1, 2))
    with np.errstate(all="raise"):
        assert reid_score(a, b, np.array([800.0, 0.0]), 0).tolist() == [1]
        assert reid_score(a, b, np.array([-800.0, 0.0]), 0).tolist() == [0]
