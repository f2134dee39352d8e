"""The pictogram world: scenes that are known pixel by pixel, and a small model that knows them."""

from pathlib import Path

SAMPLES = Path(__file__).parent / "samples"
POLICY = Path(__file__).parent / "policy.yaml"
