"""Encoders: what turns images into features.

encoder              what an encoder is
registry             encoders by name
function             a function of the user
transformers_vision  vision models of transformers: RAD-DINO, DINOv2, CLIP and others
biovil_t             BioViL-T: images and reports
biomedclip           BiomedCLIP: images and captions
torch_model          what models of torch and transformers share
weights              files of checkpoints
inception            Inception v3 of torch-fidelity
xrv                  DenseNet-121 of TorchXRayVision
networks             what networks whose weights are one file share
radiomics            pyradiomics with frd-score's configuration
"""
