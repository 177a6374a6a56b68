"""Imports torchvision, also beside a torch without CUDA, with which the compiled part of its file does not load."""

import importlib
from typing import Any

import torch

_KEPT: list[Any] = []  # a library that nothing refers to takes its operators with it


def import_torchvision() -> None:
    """Imports torchvision; it registers the shapes of two operators of that part, so they are declared before."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        operators = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(operators)
        importlib.import_module("torchvision")


import_torchvision()
