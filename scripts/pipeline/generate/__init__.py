"""Prompts to images, with a text-to-image model."""
