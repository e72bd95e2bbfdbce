"""Distil a pretrained BERT into a small, fast translation model, distributed with Ray."""

__version__ = "0.1.0"
