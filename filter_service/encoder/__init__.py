"""The encoder: turns images and texts into unit vectors with an open_clip model."""

from filter_service.encoder.encoder import Encoder, encoder_of, load_encoder
from filter_service.encoder.phrase_bank import phrases

__all__ = ["Encoder", "encoder_of", "load_encoder", "phrases"]
