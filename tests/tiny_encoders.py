"""Encoders with random weights, of real classes and in the published formats, very small.

python tests/tiny_encoders.py rad-dino|clip|siglip|vit|resnet|biovil-t|biomedclip FOLDER
"""

import json
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

SIDE, PATCH = 28, 14
LAYERS: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
SEEING: dict[str, Any] = {**LAYERS, "image_size": SIDE, "patch_size": PATCH}
SQUARE = {"height": SIDE, "width": SIDE}
WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "large", "small", "effusion", "on", "the", "left", "right"),
    *("no", "nodule", ".", ",", "!"),
]


def rad_dino(folder: Path, seed: int = 0) -> None:
    """Saves a DINOv2 with a grey-scale normalisation, as RAD-DINO is."""
    torch.manual_seed(seed)
    Dinov2Model(Dinov2Config(**LAYERS, image_size=SIDE, patch_size=PATCH, mlp_ratio=2)).save_pretrained(folder)
    size = {"shortest_edge": SIDE}
    BitImageProcessorPil(
        size=size, crop_size=SQUARE, image_mean=[0.53] * 3, image_std=[0.26] * 3, resample=3
    ).save_pretrained(folder)


def clip(folder: Path) -> None:
    """Saves a CLIP, whose tokens are letters, with its tokenizer and its image processor."""
    torch.manual_seed(0)
    letters = [chr(number) for number in range(97, 123)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), ".</w>", "<|startoftext|>", "<|endoftext|>"]
    numbers = {token: number for number, token in enumerate(tokens)}
    text = {"vocab_size": len(tokens), "max_position_embeddings": 16}
    text |= {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "pad_token_id": len(tokens) - 1}
    config = CLIPConfig(text_config={**LAYERS, **text}, vision_config=SEEING, projection_dim=24)
    CLIPModel(config).save_pretrained(folder)
    CLIPTokenizer(vocab=numbers, merges=[]).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SQUARE).save_pretrained(folder)


def siglip(folder: Path) -> None:
    """Saves a SigLIP, which reads prompts that are padded to a fixed length."""
    torch.manual_seed(0)
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 12, "projection_size": 32}
    SiglipModel(SiglipConfig(text_config={**LAYERS, **text}, vision_config=SEEING)).save_pretrained(folder)
    SiglipImageProcessorPil(size=SQUARE).save_pretrained(folder)
    bert_tokenizer(folder)


def vit(folder: Path, has_pooler: bool = True) -> None:
    """Saves a ViT; classifiers have no pooler."""
    torch.manual_seed(0)
    ViTModel(ViTConfig(**SEEING), add_pooling_layer=has_pooler).save_pretrained(folder)
    ViTImageProcessorPil(size=SQUARE).save_pretrained(folder)


def resnet(folder: Path) -> None:
    """Saves a ResNet, whose image processor makes images of several shapes."""
    torch.manual_seed(0)
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1])).save_pretrained(folder)
    BitImageProcessorPil(size={"shortest_edge": 40}, do_center_crop=False).save_pretrained(folder)


def bert_tokenizer(folder: Path) -> None:
    """Saves the tokenizer of a BERT, as published repositories have it."""
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def bert(kind: Any) -> Any:
    """Returns a BERT with heads of 64, as BERT-base has them."""
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return kind(BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, **sizes))


def biovil_t(folder: Path) -> None:
    """Saves a BioViL-T in the files of its repository: a state dict of the image model, and CXR-BERT."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(image_tensors(), folder / "biovil_t_image_model_proj_size_128.pt")
    text = {f"cls_projection_head.{name}": value for name, value in projection_head().items()}
    torch.save({**bert(BertForMaskedLM).state_dict(), **text}, folder / "pytorch_model.bin")
    bert_tokenizer(folder)


def image_tensors() -> dict[str, torch.Tensor]:
    """Returns the state dict of BioViL-T's image model, with one block in each stage of its ResNet."""
    trunk = {"conv1.weight": weights(8, 3, 7, 7), **norm("bn1", 8)}
    width_in = 8
    for stage in range(4):
        inner, layer = 4 << stage, f"layer{stage + 1}.0"
        shapes = [(inner, width_in, 1, 1), (inner, inner, 3, 3), (4 * inner, inner, 1, 1)]
        for number, shape in enumerate(shapes, 1):
            trunk |= {f"{layer}.conv{number}.weight": weights(*shape), **norm(f"{layer}.bn{number}", shape[0])}
        trunk |= {f"{layer}.downsample.0.weight": weights(4 * inner, width_in, 1, 1)}
        trunk |= norm(f"{layer}.downsample.1", 4 * inner)
        width_in = 4 * inner
    trunk |= {"fc.weight": weights(10, width_in), "fc.bias": weights(10)}
    found = {f"encoder.encoder.{name}": value for name, value in trunk.items()}
    found |= {"encoder.backbone_to_vit.weight": weights(16, width_in, 1, 1)}
    found |= {"encoder.missing_previous_emb": weights(1, 16, 1, 1), "encoder.vit_pooler.type_embed": weights(2, 1, 16)}
    head = {
        "0.weight": weights(12, 32, 1, 1),
        **norm("1", 12),
        "3.weight": weights(12, 12, 1, 1),
        "3.bias": weights(12),
    }
    return {**found, **{f"projector.model.{name}": value for name, value in head.items()}}


def projection_head() -> dict[str, torch.Tensor]:
    """Returns the state dict of CXR-BERT's projection."""
    found = {"dense_to_hidden.weight": weights(12, 128), "dense_to_hidden.bias": weights(12)}
    found |= {"LayerNorm.weight": weights(12), "LayerNorm.bias": weights(12)}
    return {**found, "dense_to_output.weight": weights(12, 12), "dense_to_output.bias": weights(12)}


def biomedclip(folder: Path, **settings: Any) -> None:
    """Saves a BiomedCLIP as open_clip does; `settings` replace those of its image side."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"visual.trunk.{name}": value for name, value in vit_tensors().items()}
    tensors |= {f"text.transformer.{name}": value for name, value in bert(BertModel).state_dict().items()}
    tensors |= {"visual.head.proj.weight": weights(12, 64), "logit_scale": torch.tensor(4.0)}
    tensors |= {"text.proj.0.weight": weights(70, 128), "text.proj.2.weight": weights(12, 70)}
    safetensors.torch.save_file(
        {name: value.contiguous() for name, value in tensors.items()}, folder / "open_clip_model.safetensors"
    )
    vision = {"timm_model_name": "vit_base_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 32}
    text = {"hf_model_name": "microsoft/BERT", "hf_proj_type": "mlp", "context_length": 24}
    text |= {"hf_pooler_type": "cls_last_hidden_state_pooler"}
    model = {"embed_dim": 12, "vision_cfg": {**vision, **settings}, "text_cfg": text}
    preprocessing = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}
    config = {"model_cfg": model, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    bert_tokenizer(folder)


def vit_tensors() -> dict[str, torch.Tensor]:
    """Returns the state dict of a ViT of timm: one head of 64, two blocks, four patches of 16 pixels."""
    found = {"cls_token": weights(1, 1, 64), "pos_embed": weights(1, 5, 64)}
    found |= {"patch_embed.proj.weight": weights(64, 3, 16, 16), "patch_embed.proj.bias": weights(64)}
    found |= {"norm.weight": weights(64), "norm.bias": weights(64)}
    shapes = {"attn.qkv": (192, 64), "attn.proj": (64, 64), "mlp.fc1": (128, 64), "mlp.fc2": (64, 128)}
    for number in range(2):
        for name, shape in shapes.items():
            found |= {f"blocks.{number}.{name}.weight": weights(*shape)}
            found |= {f"blocks.{number}.{name}.bias": weights(shape[0])}
        for name in ("norm1", "norm2"):
            found |= {f"blocks.{number}.{name}.weight": weights(64), f"blocks.{number}.{name}.bias": weights(64)}
    return found


def weights(*shape: int) -> torch.Tensor:
    """Returns random weights, so large that features of different images differ."""
    return torch.randn(shape) / max(1, torch.Size(shape[1:]).numel()) ** 0.5


def norm(name: str, width: int) -> dict[str, torch.Tensor]:
    """Returns the tensors of a batch norm."""
    found = {"weight": 1 + weights(width) / 4, "bias": weights(width) / 4}
    found |= {"running_mean": weights(width) / 4, "running_var": 1 + torch.rand(width)}
    found |= {"num_batches_tracked": torch.tensor(1)}
    return {f"{name}.{kind}": value for kind, value in found.items()}


ENCODERS = {
    "rad-dino": rad_dino,
    "clip": clip,
    "siglip": siglip,
    "vit": vit,
    "resnet": resnet,
    "biovil-t": biovil_t,
    "biomedclip": biomedclip,
}

if __name__ == "__main__":
    ENCODERS[sys.argv[1]](Path(sys.argv[2]))
