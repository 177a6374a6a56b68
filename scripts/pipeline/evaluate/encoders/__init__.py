"""Encoders: what turns images into features.

encoder              what an encoder is
registry             encoders by name
transformers_vision  vision models of transformers: RAD-DINO, DINOv2, CLIP and others
biovil_t             BioViL-T: images and reports
biomedclip           BiomedCLIP: images and captions
torch_model          what encoders in torch share
weights              files of checkpoints
"""
