"""Text-to-image pipelines of diffusers with random weights, of real classes, very small.

python tests/pipeline/generate/tiny_pipelines.py sana|stable-diffusion|pixart FOLDER
"""

import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

WORDS = [*map(chr, range(33, 127))]


def tokenizer(kind: type[PreTrainedTokenizerFast] = PreTrainedTokenizerFast, **options: Any) -> Any:
    """Makes a tokenizer whose tokens are characters."""
    tokens = {token: number for number, token in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *WORDS])}
    characters = Tokenizer(models.WordLevel(tokens, "<unk>"))
    characters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    characters.post_processor = processors.TemplateProcessing("<bos> $A <eos>", None, [("<bos>", 1), ("<eos>", 2)])
    special = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return kind(tokenizer_object=characters, **special, **options)


def sana() -> SanaPipeline:
    """Returns a Sana: deep-compression autoencoder, linear attention, Gemma 2."""
    torch.manual_seed(0)
    blocks = {"attention_head_dim": 2, "decoder_act_fns": "silu", "decoder_norm_types": "batch_norm"}
    vae = AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=[1, 1],
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
        **blocks,
    )
    transformer = SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=16,
    )
    gemma = Gemma2Config(
        vocab_size=len(WORDS) + 4,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        max_position_embeddings=4096,
    )
    return SanaPipeline(
        tokenizer(model_max_length=4096), Gemma2Model(gemma), vae, transformer, FlowMatchEulerDiscreteScheduler(shift=7)
    )


def _autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
    )


def stable_diffusion() -> StableDiffusionPipeline:
    """Returns a Stable Diffusion 1: UNet, and CLIP's text encoder, which reads 77 tokens."""
    torch.manual_seed(0)
    clip = CLIPTextConfig(
        vocab_size=len(WORDS) + 4,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=2,
    )
    return StableDiffusionPipeline(
        vae=_autoencoder(),
        text_encoder=CLIPTextModel(clip),
        tokenizer=tokenizer(model_max_length=77),
        unet=unet,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def pixart() -> PixArtSigmaPipeline:
    """Returns a PixArt-Sigma: transformer, and T5, of which it reads 300 tokens."""
    torch.manual_seed(0)
    transformer = PixArtTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=2,
        attention_head_dim=4,
        num_attention_heads=2,
        caption_channels=8,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=8,
        use_additional_conditions=False,
        norm_type="ada_norm_single",
    )
    t5 = T5Config(vocab_size=len(WORDS) + 4, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    return PixArtSigmaPipeline(
        tokenizer(model_max_length=512), T5EncoderModel(t5), _autoencoder(), transformer, DPMSolverMultistepScheduler()
    )


def save_lora(pipeline: StableDiffusionPipeline, file: Path) -> None:
    """Saves a LoRA of the UNet with random weights, as diffusers' training scripts do."""
    torch.manual_seed(1)
    pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    weights = get_peft_model_state_dict(pipeline.unet)
    pipeline.save_lora_weights(file.parent, unet_lora_layers=weights, weight_name=file.name)


PIPELINES = {"sana": sana, "stable-diffusion": stable_diffusion, "pixart": pixart}

if __name__ == "__main__":
    PIPELINES[sys.argv[1]]().save_pretrained(sys.argv[2])
