#!/usr/bin/env bash
# open_clip prepares images differently for the same weights when they come from a file.
#
# Expected: a model known by name has its own preprocessing; where the weights come from, a download
#   or a file of one's own, changes nothing.
# Happens: mean, deviation, interpolation and resize mode belong to the tag of published weights,
#   not to the architecture. With a file as `pretrained`, all four are those of CLIP, without a
#   warning. For 51 of the 115 architectures with tags, every tag differs from that: SigLIP, PE,
#   MobileCLIP, CLIPA and others. Of a tag that wants QuickGELU it warns; of a file it cannot.
# Version: open_clip_torch 3.3.0 (torch 2.15.0; its download takes gigabytes).
# Source: open_clip's `pretrained.py`, where the tags' settings stand, and `factory.py`, which
#   merges them only if `pretrained` is a tag.
# Matters: fine-tuned weights, and copies for machines without a network, are served with pictures
#   that the model was not trained on. Scores are plausible and worse.
# To do: give image_mean, image_std, image_interpolation, image_resize_mode and force_quick_gelu of
#   the tag that the weights began from (`open_clip.get_pretrained_cfg`), and record them with the
#   weights.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --no-compile open_clip_torch==3.3.0 timm==1.0.31 \
  torch==2.15.0 torchvision==0.29.2
cd "$folder"
venv/bin/python - <<'END'
import logging
import sys

import open_clip
import torch

NAME, TAG = "PE-Core-T-16-384", "meta"
FIELDS = ("mean", "std", "interpolation", "resize_mode")
logging.disable()  # it says that the weights are random: their values do not matter here

torch.save(open_clip.create_model(NAME).state_dict(), "weights.pt")
used = open_clip.create_model(NAME, pretrained="weights.pt").visual.preprocess_cfg
published = open_clip.get_pretrained_cfg(NAME, TAG)
clip = open_clip.get_pretrained_cfg("ViT-B-32", "openai")

print("open_clip", open_clip.__version__)
for field in FIELDS:
    print(f"{NAME}, {field}: expected {published[field]}, seen from a file {used[field]}")
sys.exit(not all(used[field] == clip[field] != published[field] for field in FIELDS))
END
