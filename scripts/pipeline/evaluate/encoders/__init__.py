"""Encoders: what turns images into features.

encoder        what an encoder is
networks       a network of torch whose weights are one file
inception      InceptionV3 of torch-fidelity
xrv            DenseNet-121 of TorchXRayVision
radiomics      pyradiomics with frd-score's configuration
"""
