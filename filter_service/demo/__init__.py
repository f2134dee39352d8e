"""The demo's data and model: rendered pictogram scenes, and a small model trained on them."""

from pathlib import Path

SAMPLES = Path(__file__).parent / "samples"
POLICY = Path(__file__).parent / "policy.yaml"
