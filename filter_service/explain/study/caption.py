"""Captions an image with CoCa, with an attention map for each word.

The decoder does not see places: it attends to the image pooler's queries, and these attend to the
places. The two attentions are multiplied. As both are means over heads, the product is the mean,
over all pairs of a decoder's head and a pooler's head, of the attention that passes through both.
It says where was looked, not what changed the word.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from filter_service.errors import NotExplainable
from filter_service.explain.activations import ActivationTape
from filter_service.verdicts.explanation import Grid

if TYPE_CHECKING:
    from filter_service.encoder import Encoder

SHORTEST, LONGEST = 5, 30  # tokens with the first, as open_clip's own `generate` has them

# Its attributes are those of open_clip's class, which carries no types.
Model = Any


class Tokenizer(Protocol):
    """What a caption needs of open_clip's tokenizer: a piece that ends a word ends in a blank."""

    sot_token_id: int
    eot_token_id: int

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""


class CaptionWord(BaseModel, frozen=True, extra="forbid", arbitrary_types_allowed=True):
    """One word of a caption, with the attention it was written with; the shares add up to one."""

    word: str
    grid: Grid  # (h, w) share of each place, mean over the decoder's layers
    layers: Grid  # (l, h, w) the same, layer by layer
    elsewhere: float  # share of the class token, which is no place


class Caption(BaseModel, frozen=True, extra="forbid"):
    """A caption of the image in the model's own words, the most likely token at each step."""

    text: str
    words: tuple[CaptionWord, ...]


def caption(encoder: "Encoder", tokenizer: Tokenizer, pixels: Tensor) -> Caption:
    """Caption one image, (3, h, w); raises NotExplainable for a model that writes no captions."""
    model: Model = encoder.model
    _require_decoder(model)
    with torch.inference_mode():
        image = pixels[None].to(next(model.parameters()).device)
        pool = model.visual.attn_pool
        with ActivationTape({pool.ln_k: lambda _, out: out}) as tape:
            latent, embeddings = model._encode_image(image)  # (1, d), (1, q, d)
        seen = _pooled_from(pool, tape.activations()[pool.ln_k])[-embeddings.shape[1] :]  # (q, j)
        tokens = _write(model, tokenizer, latent, embeddings)  # without the end
        attention = _looked(model, tokens, latent, embeddings) @ seen  # (l, t, j)
    words = _words(tokenizer, tokens[1:])
    return Caption(
        text=" ".join(word for word, _ in words),
        words=tuple(
            _word(word, attention[:, places].mean(dim=1), model.visual.grid_size)
            for word, places in words
        ),
    )


def _require_decoder(model: Model) -> None:
    known = (type(model).__module__, type(model).__name__) == ("open_clip.coca_model", "CoCa")
    if not known:
        raise NotExplainable(
            f"{type(model).__name__} has no text decoder, so it writes no captions; "
            "only CoCa models do."
        )
    if getattr(model.visual, "attn_pool", None) is None:
        raise NotExplainable(
            f"The image tower {type(model.visual).__name__} of this CoCa has no attentional "
            "pooler, so where its decoder looks cannot be told."
        )


def _write(model: Model, tokenizer: Tokenizer, latent: Tensor, embeddings: Tensor) -> list[int]:
    """The most likely token after each other, up to the end or the longest: [start, ...].

    open_clip's own `generate` needs another package, and for this one choice no search.
    """
    tokens, ends = [tokenizer.sot_token_id], [tokenizer.eot_token_id, model.pad_id]
    while len(tokens) < min(LONGEST, model.context_length):
        logits = _read(model, tokens, latent, embeddings)[-1]  # (vocabulary,)
        if len(tokens) < SHORTEST:
            logits[ends] = -torch.inf
        token = int(logits.argmax())
        if token in ends:
            break
        tokens.append(token)
    return tokens


def _read(model: Model, tokens: Sequence[int], latent: Tensor, embeddings: Tensor) -> Tensor:
    """Logits of the token after each of these: (t, vocabulary)."""
    text = torch.tensor([tokens], device=embeddings.device)
    out = model(None, text, image_latent=latent, image_embs=embeddings, output_labels=False)
    logits: Tensor = out["logits"][0]
    return logits


def _looked(model: Model, tokens: Sequence[int], latent: Tensor, embeddings: Tensor) -> Tensor:
    """Attention to the pooler's queries as each token after the first was chosen: (l, t - 1, q).

    The decoder is causal: read again in one piece, each position attends as it did when its turn
    came. The last token has written nothing yet.
    """
    blocks: list[Any] = list(model.text_decoder.cross_attn)
    watched: dict[nn.Module, Any] = {}
    for block in blocks:
        watched[block.ln_1] = lambda _, out: out
        watched[block.ln_1_kv] = lambda _, out: out  # called for keys and for values, alike
    with ActivationTape(watched) as tape:
        _read(model, tokens, latent, embeddings)
    activations = tape.activations()
    return torch.stack(
        [_attention(b.attn, activations[b.ln_1], activations[b.ln_1_kv][:1]) for b in blocks]
    )[:, :-1]


def _pooled_from(pool: Any, tokens: Tensor) -> Tensor:  # noqa: ANN401  (open_clip's, untyped)
    """What each of the pooler's queries looks at: tokens (1, j, d) -> (q, j)."""
    return _attention(pool.attn, pool.ln_q(pool.query)[None], tokens)


def _attention(attention: nn.MultiheadAttention, queries: Tensor, tokens: Tensor) -> Tensor:
    """The module's own attention, mean over heads: (1, t, d), (1, j, e) -> (t, j)."""
    if not attention.batch_first:
        queries, tokens = queries.transpose(0, 1), tokens.transpose(0, 1)
    weights: Tensor = attention(queries, tokens, tokens, need_weights=True)[1]
    return weights[0]


def _words(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[tuple[str, slice]]:
    """Words, with the places of their pieces among the tokens."""
    ends = [i + 1 for i, t in enumerate(tokens) if tokenizer.decode([t]).endswith(" ")]
    if tokens and (not ends or ends[-1] != len(tokens)):
        ends.append(len(tokens))  # cut off within a word
    return [
        (tokenizer.decode(tokens[start:end]).strip(), slice(start, end))
        for start, end in pairwise([0, *ends])
    ]


def _word(word: str, attention: Tensor, grid: tuple[int, int]) -> CaptionWord:
    """Attention by layer, (l, j), of which the class token comes first."""
    places = attention[:, 1:].reshape(-1, *grid)  # (l, h, w)
    return CaptionWord(
        word=word,
        grid=places.mean(dim=0).cpu().numpy(),
        layers=places.cpu().numpy(),
        elsewhere=float(attention[:, 0].mean()),
    )
