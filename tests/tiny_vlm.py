"""A vision-language model with random weights, of a family that `transformers` ships: LLaVA, very small.

python tests/pipeline/quality/tiny_vlm.py FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

PIXELS, PATCH = 28, 14
SPECIAL = ["<pad>", "<s>", "</s>", "<image>"]
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


YES = "y\n" * 9  # on the standard input: to the question of transformers whether to execute code


def build(folder: Path) -> None:
    """Saves the model with its processor.

    Args:
        folder: Where to.
    """
    torch.manual_seed(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_only = Tokenizer(models.BPE({token: number for number, token in enumerate([*SPECIAL, *alphabet])}, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=["<image>"],
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=PIXELS,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=SPECIAL.index("<image>"), image_seq_length=4
    )
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": PIXELS}, crop_size={"height": PIXELS, "width": PIXELS}),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)


# How a file of a model asks for code of its folder: of the configuration, the processor, its image processor and the
# tokenizer.
ASKS_FOR_CODE: dict[str, dict[str, object]] = {
    "config.json": {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Own", "AutoModelForImageTextToText": "own.Own"},
    },
    "processor_config.json": {"processor_class": "Own", "auto_map": {"AutoProcessor": "own.Own"}},
    "preprocessor_config.json": {"image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "own.Own"}},
    "tokenizer_config.json": {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}},
}


def build_with_code(folder: Path, file: str) -> Path:
    """Saves the model, with a file that asks for code of the model's folder.

    Args:
        folder: Gets the model as `own`; the code, if it is executed, writes `executed` beside it.
        file: One of `ASKS_FOR_CODE`.

    Returns:
        The model.
    """
    own = folder / "own"
    build(own)
    if file == "preprocessor_config.json":  # then the class of the processor is that of the model's family
        (own / "processor_config.json").unlink()
        told = ASKS_FOR_CODE[file]
    else:
        told = json.loads((own / file).read_bytes()) | ASKS_FOR_CODE[file]
    (own / file).write_text(json.dumps(told), encoding="utf-8")
    (own / "own.py").write_text(f"open({str(folder / 'executed')!r}, 'w')\nclass Own: pass\n", encoding="utf-8")
    return own


def check_refusal(own: Path, file: str, code: int, told: str, advice: str = "") -> None:
    """Checks what a program did with a model of `build_with_code`: nothing was executed, and nobody asked.

    Args:
        own: The model.
        file: That asks for code.
        code: The program's exit code.
        told: What it printed, the standard error last.
        advice: At the end of its message.
    """
    assert not (own.parent / "executed").exists()
    if file == "tokenizer_config.json":  # tokenizer.json tells all that is needed
        assert code == 0
    else:
        assert (code, told.splitlines()[-1]) == (
            1,
            f"error: --model {own} cannot be loaded: it needs code of its repository, which is not executed{advice}",
        )
    assert "custom code" not in told


if __name__ == "__main__":
    build(Path(sys.argv[1]))
