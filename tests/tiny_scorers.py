"""RadGraph and CheXbert with random weights, very small: the real classes of `radgraph` and `f1chexbert`.

Both packages look for weights in the cache of the user, at XDG_CACHE_HOME when they are imported, and for BERT by its
name on the Hub, which may be a folder too.
"""

import json
import os
from pathlib import Path
from unittest import mock

import torch
from transformers import BertConfig, BertTokenizer

WORDS = ("no", "effusion", "edema", "large", ".", "the", ",", "1", "2", "a", "b")
BERT = "bert-base-uncased"
WIDE = 8
RADGRAPH = "radgraph-xl"


def build(folder: Path) -> None:
    """Writes the weights to a folder, which has to be XDG_CACHE_HOME and the working directory.

    Args:
        folder: Where to.
    """
    torch.manual_seed(1)
    _build_bert(folder / BERT)
    _build_chexbert()
    _build_radgraph(str(folder / BERT))


def _build_bert(folder: Path) -> None:
    folder.mkdir()
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertConfig(vocab_size=len(words), **sizes).save_pretrained(folder)


def _build_chexbert() -> None:
    from f1chexbert.f1chexbert import CACHE_DIR, bert_labeler

    labeler = bert_labeler(inference=True)
    with torch.no_grad():
        for values in labeler.parameters():
            values.normal_(0, 1)
    os.makedirs(CACHE_DIR)
    state = {f"module.{name}": values for name, values in labeler.state_dict().items()}
    torch.save({"model_state_dict": state}, os.path.join(CACHE_DIR, "chexbert.pth"))


def _build_radgraph(bert: str) -> None:
    from radgraph.dygie.models.dygie import DyGIE
    from radgraph.radgraph import CACHE_DIR, RadGraph

    folder = Path(CACHE_DIR) / RADGRAPH
    vocabulary = folder / "vocabulary"
    vocabulary.mkdir(parents=True)
    (vocabulary / "non_padded_namespaces.txt").write_text("*labels\n*tags\n")
    kinds = "\nObservation::definitely present\nAnatomy::definitely present\n"
    (vocabulary / f"{RADGRAPH}__ner_labels.txt").write_text(kinds)
    (vocabulary / f"{RADGRAPH}__relation_labels.txt").write_text("\nlocated_at\nmodify\n")
    embedder = {"bert": {"model_name": bert, "max_length": 64}}
    events = {"trigger_spans_per_word": 0.3, "argument_spans_per_word": 0.3}
    model = {
        **dict.fromkeys(("type", "initializer", "module_initializer"), "removed"),
        "embedder": {"token_embedders": embedder},
        "modules": {
            "coref": {"spans_per_word": 0.3, "max_antecedents": 10},
            "ner": {},
            "relation": {"spans_per_word": 0.5},
            "events": {**events, "loss_weights": {"trigger": 1.0, "arguments": 1.0}},
        },
        "feature_size": 4,
        "max_span_width": 2,
        "target_task": "relation",
        "feedforward_params": {"num_layers": 1, "hidden_dims": WIDE, "dropout": 0.0},
        "loss_weights": {"ner": 1.0, "relation": 1.0, "coref": 0.0, "events": 0.0},
    }
    reader = {"max_span_width": 2, "token_indexers": embedder}
    (folder / "config.json").write_text(json.dumps({"dataset_reader": reader, "model": model}))
    weights = folder / "weights.th"
    torch.save({}, weights)
    with mock.patch.object(DyGIE, "load_state_dict"):  # the class makes weights, of which there are none to load yet
        made = RadGraph(model_type=RADGRAPH).model
    with torch.no_grad():
        for values in made.parameters():
            values.normal_(0, 1)
    torch.save(made.state_dict(), weights)
