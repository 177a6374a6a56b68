"""More vision-language models with random weights: families whose processors differ from LLaVA's."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

PIXELS, PATCH = 28, 14
SIZES = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SIZES, "image_size": PIXELS, "patch_size": PATCH}


def build_gemma(folder: Path) -> None:
    """Saves a Gemma 3: kinds of tokens beside their numbers, two ends of a text, attention within the image."""
    torch.manual_seed(0)
    special = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
    images = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = _tokenizer(special, images, bos_token="<bos>", eos_token="<eos>")
    template = (
        "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m.role }}\n{% for part in m.content %}"
        "{% if part.type == 'image' %}<start_of_image>{% else %}{{ part.text }}{% endif %}{% endfor %}<end_of_turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    )
    processor = transformers.Gemma3Processor(
        transformers.Gemma3ImageProcessorPil(size={"height": PIXELS, "width": PIXELS}),
        tokenizer,
        chat_template=template,
        image_seq_length=4,
    )
    text = {"vocab_size": len(tokenizer), "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0}
    config = transformers.Gemma3Config(
        text_config={**SIZES, **text, "bos_token_id": 2, "eos_token_id": 1},
        vision_config=VISION,
        mm_tokens_per_image=4,
        boi_token_index=5,
        eoi_token_index=6,
        image_token_index=7,
    )
    model = transformers.Gemma3ForConditionalGeneration(config)
    model.generation_config.eos_token_id = [1, 4]
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def build_idefics(folder: Path) -> None:
    """Saves an Idefics 3: an image is cut into tiles, as many as its shape needs, so that prompts differ in length."""
    torch.manual_seed(0)
    special = ["<pad>", "<|im_start|>", "<end_of_utterance>"]
    images = {
        "fake_image_token": "<fake_token_around_image>",
        "image_token": "<image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tokenizer = _tokenizer(special, images, bos_token="<|im_start|>", eos_token="<end_of_utterance>")
    template = (
        "<|im_start|>{% for m in messages %}{{ m.role }}:{% for part in m.content %}{% if part.type == 'image' %}"
        "<image>{% else %}{{ part.text }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    processor = transformers.Idefics3Processor(
        transformers.Idefics3ImageProcessorPil(
            size={"longest_edge": 2 * PIXELS}, max_image_size={"longest_edge": PIXELS}
        ),
        tokenizer,
        image_seq_len=1,
        chat_template=template,
    )
    text = {"model_type": "llama", "vocab_size": len(tokenizer), "num_key_value_heads": 2, "pad_token_id": 0}
    config = transformers.Idefics3Config(
        text_config={**SIZES, **text, "bos_token_id": 1, "eos_token_id": 2},
        vision_config=VISION,
        image_token_id=4,
        scale_factor=2,
    )
    transformers.Idefics3ForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)


FAMILIES = {"gemma": build_gemma, "idefics": build_idefics}


def _tokenizer(special: list[str], images: dict[str, str], **named: str) -> transformers.PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*dict.fromkeys([*special, *images.values(), *alphabet])]
    bytes_only = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bytes_only, pad_token="<pad>", extra_special_tokens=images, **named
    )
