"""Encoders: what turns images into features.

encoder              what an encoder is
registry             encoders by name
function             a function of the user
radiomics            pyradiomics with frd-score's configuration
weights              weights: pinned files, tensors that are read without running code
torch_model          what encoders in torch share
inception            Inception v3 of torch-fidelity
xrv                  DenseNet-121 of TorchXRayVision
transformers_model   what encoders with classes of transformers share
transformers_vision  vision models of transformers: RAD-DINO, DINOv2, CLIP and others
biovil_t             BioViL-T: images and reports
biomedclip           BiomedCLIP: images and captions
"""
