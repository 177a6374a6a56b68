"""How far two images of a pair are apart: by pixels, by features, by a network that re-identifies patients."""

from __future__ import annotations

import numpy as np


def pixel_distance(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Returns the root mean square of the differences of grey values, for each pair.

    d = sqrt(mean_p (a_p - b_p)²), in float64, for grey values of 0 to 255: 0 for equal images, 255 for black against
    white. Two radiographs that are shifted against each other are far apart, although a person sees one image; two of
    different patients with like shadows are close.

    Source: CheXGenBench (Dutt et al. 2025), whose code subtracts 8-bit numbers, which wrap around at 256: 0 against 2
    is 254 there, and its published values lie around 147, that of noise.

    Args:
        one: Images of one size, of shape (n, pixels), of any type.
        two: The other image of each pair.

    Example:
        >>> black, grey, white = (np.full((1, 4), value, np.uint8) for value in (0, 2, 255))
        >>> pixel_distance(black, white).tolist(), pixel_distance(black, grey).tolist()
        ([255.0], [2.0])
    """
    difference = np.subtract(one, two, dtype=np.float64)
    return np.sqrt(np.einsum("ij,ij->i", difference, difference) / difference.shape[1])


def latent_distance(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Returns the Euclidean distance of features, divided by the root of their number, for each pair.

    d = |a - b| / sqrt(width), in float64. Its scale is that of the encoder: only a comparison with the same distance of
    other pairs means something.

    Source: CheXGenBench (Dutt et al. 2025), there of RAD-DINO's features.

    Args:
        one: Features, of shape (n, width).
        two: Those of the other image of each pair.

    Example:
        >>> latent_distance(np.zeros((1, 4)), np.full((1, 4), 3.0)).tolist()
        [3.0]
    """
    return pixel_distance(one, two)


def reid_score(one: np.ndarray, two: np.ndarray, weight: np.ndarray, bias: float) -> np.ndarray:
    """Returns the probability that two images are of one patient, as a Siamese network says it, for each pair.

    p = 1 / (1 + exp(-(w·|a - b| + c))), in float64. The network's probability is not one for these images: another
    preprocessing or another scanner moves it. Compare it with that of real pairs.

    Source: Packhäuser et al. 2022, "Deep learning-based patient re-identification is able to exploit the biometric
    nature of medical chest X-ray data"; CheXGenBench (Dutt et al. 2025).

    Args:
        one: The network's features of one image, of shape (n, width).
        two: Those of the other image of each pair.
        weight: w, of shape (width,).
        bias: c.

    Example:
        >>> a, b, weight = np.array([[0.0, 1.0]]), np.array([[1.0, 1.0]]), np.array([-2.0, 3.0])
        >>> reid_score(a, a, weight, 0.0).tolist(), reid_score(a, b, weight, 2.0).tolist()
        ([0.5], [0.5])
    """
    logits = np.abs(np.subtract(one, two, dtype=np.float64)) @ np.asarray(weight, np.float64) + float(bias)
    return 0.5 * (1 + np.tanh(logits / 2))
