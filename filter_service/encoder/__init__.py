"""The only room that uses open_clip: images and texts in, unit vectors out, one fingerprint."""

from filter_service.encoder.encoding import Encoder, load_encoder

__all__ = ["Encoder", "load_encoder"]
