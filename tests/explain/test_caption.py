"""CoCa's captions: the words are the model's own, and so is where it looked."""

from copy import copy, deepcopy
from functools import cache
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor

from filter_service.errors import NotExplainable
from filter_service.explain.study.caption import Caption, caption
from tests.support.tiny_encoders import tiny
from tests.support.tiny_inputs import pixels, state

SHORTEST = 5
TOKENIZER = open_clip.SimpleTokenizer(context_length=16)


@cache
def coca() -> Any:
    """The tiny CoCa with a decoder whose last weights are drawn; open_clip leaves them as found."""
    encoder = deepcopy(tiny("coca"))
    weights = encoder.model.text_decoder.text_projection
    draws = torch.randn(weights.shape, generator=torch.Generator().manual_seed(3))
    weights.data.copy_(draws)
    return encoder


def written(image: int = 0) -> Caption:
    return caption(coca(), TOKENIZER, pixels("coca")[image])


def heads(module: Any, queries: Tensor, tokens: Tensor) -> Tensor:
    """Attention of every head by its definition, from the weights: (h, t, j)."""
    if module.in_proj_weight is None:
        q_weight, k_weight = module.q_proj_weight, module.k_proj_weight
    else:
        q_weight, k_weight, _ = module.in_proj_weight.chunk(3)
    q_bias, k_bias, _ = module.in_proj_bias.chunk(3)
    q = (queries @ q_weight.T + q_bias).unflatten(-1, (module.num_heads, -1))  # (t, h, k)
    k = (tokens @ k_weight.T + k_bias).unflatten(-1, (module.num_heads, -1))  # (j, h, k)
    logits = torch.einsum("thk,jhk->htj", q, k) / q.shape[-1] ** 0.5
    weights: Tensor = logits.softmax(dim=-1)
    return weights


@torch.inference_mode()
def by_definition(image: Tensor, tokens: list[int]) -> Tensor:
    """Attention through every pair of heads, mean: (l, t, j) for the tokens after the first."""
    model: Any = coca().model
    pool = model.visual.attn_pool
    inputs: list[Tensor] = []
    handle = pool.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    _, embeddings = model._encode_image(image[None])
    handle.remove()
    seen = heads(pool.attn, pool.ln_q(pool.query), pool.ln_k(inputs[0])[0])[:, 1:]  # (g, q, j)
    stream, t = model._encode_text(torch.tensor([tokens]))[1], len(tokens)
    layers = []
    decoder = model.text_decoder
    for own, cross in zip(decoder.resblocks, decoder.cross_attn, strict=True):
        stream = own(stream, attn_mask=decoder.attn_mask[:t, :t])
        looked = heads(cross.attn, cross.ln_1(stream)[0], cross.ln_1_kv(embeddings)[0])  # (h, t, q)
        layers.append(torch.einsum("htq,gqj->hgtj", looked, seen).mean(dim=(0, 1)))
        stream = cross(stream, k_x=embeddings, v_x=embeddings)
    return torch.stack(layers)


def tokens_of(image: Tensor) -> list[int]:
    """What the model writes when asked one token at a time."""
    model: Any = coca().model
    tokens = [TOKENIZER.sot_token_id]
    while len(tokens) < model.context_length:
        with torch.inference_mode():
            out = model(image[None], torch.tensor([tokens]), output_labels=False)
        ranked = out["logits"][0, -1].argsort(descending=True).tolist()
        ends = (TOKENIZER.eot_token_id, model.pad_id)
        token = next(t for t in ranked if len(tokens) >= SHORTEST or t not in ends)
        if token in ends:
            break
        tokens.append(token)
    return tokens


def test_the_caption_is_the_most_likely_one() -> None:
    for image in range(3):
        tokens = tokens_of(pixels("coca")[image])
        assert len(tokens) >= SHORTEST
        assert written(image).text.split() == TOKENIZER.decode(tokens[1:]).split()


def test_a_caption_does_not_end_before_it_began() -> None:
    hasty = copy(TOKENIZER)
    hasty.eot_token_id = tokens_of(pixels("coca")[0])[1]  # what the model would say at once
    first = caption(coca(), hasty, pixels("coca")[0]).words[0]
    assert first.word != TOKENIZER.decode([hasty.eot_token_id]).strip()


def test_the_attention_is_that_of_the_weights() -> None:
    for image in range(3):
        tokens = tokens_of(pixels("coca")[image])
        expected = by_definition(pixels("coca")[image], tokens)  # (l, t, j)
        start = 0
        for word in written(image).words:
            end = start + next(
                n
                for n in range(1, len(tokens))
                if TOKENIZER.decode(tokens[1 + start : 1 + start + n]).strip() == word.word
            )
            mean = expected[:, start:end].mean(dim=1)  # (l, j)
            assert torch.tensor(word.layers).flatten(1).numpy() == pytest.approx(
                mean[:, 1:].numpy(), abs=1e-3
            )
            assert word.elsewhere == pytest.approx(float(mean[:, 0].mean()), abs=1e-4)
            start = end
        assert start == len(tokens) - 1


def test_the_shares_of_a_word_add_up_to_one() -> None:
    for word in written().words:
        assert float(word.grid.astype(float).sum()) + word.elsewhere == pytest.approx(1, abs=5e-3)
        assert word.grid.shape == (4, 4) and word.layers.shape == (2, 4, 4)
        assert word.layers.astype(float).mean(axis=0) == pytest.approx(
            word.grid.astype(float), abs=1e-3
        )


def test_the_attention_moves_with_the_image() -> None:
    first, second = written(0), written(1)
    assert abs(first.words[0].grid.astype(float) - second.words[0].grid.astype(float)).max() > 1e-4


def test_a_caption_is_the_same_again_and_survives_json() -> None:
    first = written().model_dump_json()
    assert written().model_dump_json() == first
    assert Caption.model_validate_json(first).model_dump_json() == first


def test_the_model_is_left_as_it_was() -> None:
    before = state(coca().model)
    written()
    assert state(coca().model) == before


def test_the_model_is_left_as_it_was_when_it_raises() -> None:
    before = state(coca().model)
    with pytest.raises(RuntimeError):
        caption(coca(), TOKENIZER, torch.zeros(7, 32, 32))
    decoder: Any = coca().model.text_decoder
    reads, last = 0, len(tokens_of(pixels("coca")[0]))

    def fail(*_: object) -> None:
        nonlocal reads
        reads += 1
        if reads == last:  # read again in one piece, with hooks on
            raise KeyError("the decoder breaks")

    handle = decoder.cross_attn[1].mlp.register_forward_pre_hook(fail)
    with pytest.raises(KeyError):
        written()
    handle.remove()
    assert state(coca().model) == before


@pytest.mark.parametrize("kind", ["vit", "siglip"])
def test_a_model_without_a_decoder_is_refused_by_name(kind: str) -> None:
    with pytest.raises(NotExplainable, match="has no text decoder"):
        caption(tiny(kind), TOKENIZER, pixels(kind)[0])
