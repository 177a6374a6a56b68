"""What encoders with classes of transformers share: its version, models made from tensors, tokenizers."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError
from pipeline.evaluate.encoders.torch_model import TorchModel
from pipeline.evaluate.encoders.weights import UnfitError, check_complete, count_layers
from pipeline.imports import check_installed, import_optional

OLDEST = (5, 4)  # version of transformers: the first with image processors that compute with PIL by their names
HEAD_WIDTH = 64  # of BERT-base and of ViT-B, whose checkpoints do not tell it
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
TOKENIZER_FILES = (
    *VOCABULARIES,
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt"),
)


class TransformersModel(TorchModel):
    """A model of classes of transformers; see `TorchModel`.

    Attributes:
        transformers: The package.
    """

    def __init__(self, name: str, checkpoint: Checkpoint) -> None:
        self.transformers = import_optional("transformers")
        self.transformers.utils.logging.disable_progress_bar()
        self.transformers.utils.logging.set_verbosity_error()
        super().__init__(name, checkpoint)

    def stack(self, tensors: dict[str, Any], *layers: Any) -> Any:
        """Makes a sequence of layers from tensors, which are named by the layers' numbers."""
        sequence = self.torch.nn.Sequential(*layers)
        sequence.load_state_dict(tensors)
        return self.ready(sequence)

    def fill(self, kind: Any, config: Any, tensors: dict[str, Any], **options: Any) -> Any:
        """Makes a model from tensors that are named as in checkpoints on the Hub.

        Raises:
            UnfitError: Some are missing or of another shape.
        """
        model, found = kind.from_pretrained(
            None, config=config, state_dict=tensors, output_loading_info=True, dtype=self.torch.float32, **options
        )
        check_complete(missing_in(found))
        return self.ready(model)

    def bert(self, tensors: dict[str, Any]) -> Any:
        """Makes a BERT of the size that its tensors have, with heads as wide as those of BERT-base."""
        words = tensors["embeddings.word_embeddings.weight"]
        config = self.transformers.BertConfig(
            vocab_size=words.shape[0],
            hidden_size=words.shape[1],
            num_hidden_layers=count_layers(tensors, "encoder.layer."),
            num_attention_heads=words.shape[1] // HEAD_WIDTH,
            intermediate_size=tensors["encoder.layer.0.intermediate.dense.weight"].shape[0],
            max_position_embeddings=tensors["embeddings.position_embeddings.weight"].shape[0],
            type_vocab_size=tensors["embeddings.token_type_embeddings.weight"].shape[0],
        )
        return self.fill(self.transformers.BertModel, config, tensors, add_pooling_layer=False)


def check_transformers() -> None:
    """Checks that torch and a transformers that is new enough are installed, without importing them.

    Raises:
        StepError: They are not.
    """
    check_installed("torch", "transformers")
    found = metadata.version("transformers")
    if tuple(int(number) for number in re.findall(r"\d+", found)[:2]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise StepError(f"this encoder needs transformers {oldest} or newer, not {found}: pip install -U transformers")


def check_tokenizer(folder: Path) -> None:
    """Checks that a folder has a vocabulary: without one, transformers makes a tokenizer that knows no word.

    Raises:
        UnfitError: It has none.
    """
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise UnfitError(f"has no tokenizer: no {' or '.join(VOCABULARIES)}")


def missing_in(loading_info: dict[str, Any]) -> set[str]:
    """Returns the names of weights that a checkpoint lacks or has in another shape, as transformers found them."""
    return {*loading_info["missing_keys"], *(key for key, *_ in loading_info["mismatched_keys"])}
