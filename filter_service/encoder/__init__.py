"""The only room that uses open_clip: images and texts in, unit vectors out, one fingerprint."""

from filter_service.encoder.encoder import Encoder, encoder_of, load_encoder
from filter_service.encoder.phrase_bank import phrases

__all__ = ["Encoder", "encoder_of", "load_encoder", "phrases"]
