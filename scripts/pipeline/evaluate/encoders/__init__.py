"""Encoders: what turns images into features.

encoder        what an encoder is
"""
