"""The `explain` command: prints an item's stored explanation, or audits an item or image."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from pydantic import ValidationError
from rich.console import Console
from sqlalchemy import select

from filter_service.audit.replay.item_on_record import decoder_of, require_same
from filter_service.cli import unflagged
from filter_service.cli.batches import Json
from filter_service.cli.context import Workplace, workplace
from filter_service.cli.model_commands import served_encoder
from filter_service.cli.parameters import LARGEST_ID, shown
from filter_service.db.policies import load_policy
from filter_service.db.tables import (
    Batch,
    Item,
    PolicyClass,
    StoredEncoder,
    StoredExplanation,
    StoredImage,
)
from filter_service.db.unjudged import reasons
from filter_service.db.vectors import StoredMemory
from filter_service.errors import FilterServiceError, NotExplainable, UnknownItem
from filter_service.explain.memory import ArrayMemory
from filter_service.images import Image, Limits, decode, read
from filter_service.policy import ForbiddenClass, Policy, read_policy
from filter_service.rendering.plain_names import plain
from filter_service.retention import RetainedPart, require_here
from filter_service.reviews.restricted import require_open
from filter_service.settings import Settings
from filter_service.verdicts.explanation import Explanation
from filter_service.verdicts.proven_claims import necessary, tested

if TYPE_CHECKING:
    import PIL.Image

    from filter_service.explain.study.decision_audit import Audit
    from filter_service.explain.study.methods import Method

PRODUCT = Path(__file__).parent.parent
POLICIES = {"bundled": PRODUCT / "demo" / "policy.yaml"}  # by model: what is ordinary for it
PHOTOGRAPHS = PRODUCT / "policy" / "starter" / "photographs.yaml"  # for every other one
DEFAULT = "decomposition"  # the map of the stored records
EVEN = 0.5  # probability at which a prompt is as near as the neutral ones


def explain(  # noqa: PLR0913, PLR0917  (an option is a parameter)
    context: typer.Context,
    item: Annotated[str, typer.Argument(help="An item's number, or an image file.")],
    prompt: Annotated[
        list[str] | None, typer.Option(help='Of a file: what to look for, "a gun". Repeatable.')
    ] = None,
    neutral: Annotated[
        list[str] | None,
        typer.Option(help="Of a file: what to contrast it with; ordinary things unless told."),
    ] = None,
    class_: Annotated[
        str | None, typer.Option("--class", help="Of an item: another class than its worst.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Make this map. Repeatable; an unknown name is answered with the list."),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--all", help="Ask in every way; all maps, unless --method names some.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write one HTML page that needs nothing beside it.")
    ] = None,
    json_: Json = False,
) -> None:
    """Why was it flagged, or not? For an item or for any image.

    An item's stored record is printed, class by class. With --method, --all or --out its image is
    explained anew, by the policy that judged it. A file needs --prompt, but no database:

        filter-service explain 17 --all --out report.html

        filter-service explain photo.jpg --prompt "a gun" --all --out report.html
    """
    wanted = _Wanted.of(method, whole, out, json_)
    number = _number(item)
    if number is None:
        _explain_file(Path(item), prompt or [], neutral or [], wanted)
        return
    if prompt or neutral:
        raise typer.BadParameter("--prompt and --neutral go with an image file, not with an item.")
    with workplace(context.obj) as place:
        if method or whole or out or class_:
            _explain_item(place, number, class_, wanted)
        else:
            _print_stored(place, number, json_)


def _number(item: str) -> int | None:
    """An item's number; None for what is none, BadParameter for one that no item can have."""
    digits = item.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()):
        return None
    if len(item) > len(str(LARGEST_ID)) or not 1 <= int(item) <= LARGEST_ID:
        raise typer.BadParameter(f"{item[:40]!r} is no item's number: those are 1 to {LARGEST_ID}.")
    return int(item)


@dataclass(frozen=True)
class _Wanted:
    """What is asked of an audit, and where it goes."""

    methods: "Mapping[str, Method]"
    whole: bool
    out: Path | None
    json: bool

    @classmethod
    def of(
        cls, names: Sequence[str] | None, whole: bool, out: Path | None, json_: bool
    ) -> "_Wanted":
        if out is not None and not out.absolute().parent.is_dir():
            raise typer.BadParameter(f"There is no folder {out.parent} to write {out.name} to.")
        return cls(_methods(names, whole), whole, out, json_)

    def show(self, audit: "Audit", image: Image, pictures: "Mapping[str, PIL.Image.Image]") -> None:
        """As a page, as JSON, or as a text."""

        from filter_service.explain.study.report import page, tell

        if self.out is not None:
            picture = image.frame(audit.record.frame).picture
            try:
                self.out.write_text(page(audit, picture, pictures), encoding="utf-8")
            except OSError as error:
                raise typer.BadParameter(f"{self.out} cannot be written: {error}.") from error
        if self.json:
            typer.echo(audit.model_dump_json())
        elif self.out is not None:
            typer.echo(f"{audit.record.class_name}: {self.out}")
        else:
            tell(audit, Console())


def _methods(names: Sequence[str] | None, whole: bool) -> "Mapping[str, Method]":
    """Those that are named; else all of them, or the default."""
    from filter_service.explain.study.methods import METHODS  # torch: only where a map is asked

    if not names:
        return METHODS if whole else {DEFAULT: METHODS[DEFAULT]}
    if unknown := [name for name in names if name not in METHODS]:
        raise typer.BadParameter(
            f"There is no method {', '.join(map(repr, unknown))}; there are {', '.join(METHODS)}."
        )
    return {name: METHODS[name] for name in names}


def _explain_file(
    path: Path, prompts: Sequence[str], neutral: Sequence[str], wanted: _Wanted
) -> None:
    """An image file and prompts, with no database: a small policy is made of them."""
    if not os.path.isfile(path):  # noqa: PTH113  (False, too, for what can name no file)
        raise typer.BadParameter(f"{shown(path)!r} is neither the number of an item nor a file.")
    if not prompts:
        raise typer.BadParameter('Say what to look for in a file: --prompt "a gun".')

    from filter_service.encoder import phrases
    from filter_service.explain.study.decision_study import audit

    settings = Settings.load()
    policy = _policy(prompts, neutral, settings.model)
    limits = Limits.of(settings)
    image = decode(read(path, limits), limits)
    encoder = served_encoder()
    vectors, bank = encoder.vectors(policy), phrases()
    memory = ArrayMemory(
        policy=vectors,
        digests=[],
        vectors=np.zeros((0, encoder.dim), dtype=np.float32),
        exact=np.zeros(0, dtype=np.bool_),
        wordings=bank,
        wording_vectors=encoder.encode_texts(bank),  # (m, d)
    )
    name = policy.classes[0].name
    found = audit(encoder, vectors, name, image, [memory], wanted.methods, wanted.whole)
    wanted.show(found, image, {})


def _policy(prompts: Sequence[str], neutral: Sequence[str], model: str) -> Policy:
    """The prompts as one class; what is ordinary is that of the policy that ships for a model."""
    shipped = read_policy(POLICIES.get(model, PHOTOGRAPHS))
    ordinary = neutral or [text for text in shipped.neutral if text not in prompts]
    name = re.sub(r"[^a-z0-9]+", "-", prompts[0].lower()).strip("-")[:64] or "asked"
    try:
        asked = ForbiddenClass(
            name=name,
            prompts=tuple(prompts),
            threshold=EVEN,
            clause="Asked of this image alone; no policy stands behind it.",
        )
        return Policy(
            name="asked",
            templates=shipped.templates,
            neutral=tuple(ordinary),
            classes=(asked,),
        )
    except ValidationError as error:
        raise typer.BadParameter(
            "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())
        ) from error


def _explain_item(place: Workplace, number: int, class_name: str | None, wanted: _Wanted) -> None:
    """An item's image by the policy and the encoder that judged it."""
    from filter_service.explain.study.decision_study import audit

    judged = _judged(place, number, class_name)
    encoder = served_encoder()
    require_same(judged.number, judged.encoder, judged.fingerprint, judged.decoder, encoder)
    limits = Limits.of(place.settings)
    image = decode(place.storage.get(judged.digest), limits)
    memory = StoredMemory(
        place.sessions, judged.encoder_id, encoder.dim, encoder.logit_scale.factor
    )
    found = audit(
        encoder,
        encoder.vectors(judged.policy),
        judged.class_name,
        image,
        [memory],
        wanted.methods,
        wanted.whole,
    )
    wanted.show(found, image, _pictures(place, found))


@dataclass(frozen=True, slots=True)
class _Judged:
    """An item with its verdict, as far as explaining it anew needs it."""

    number: int
    digest: str
    policy: Policy
    class_name: str
    encoder_id: int
    encoder: str
    fingerprint: str
    decoder: int


def _judged(place: Workplace, number: int, class_name: str | None) -> _Judged:

    with place.sessions.begin() as session:
        item = session.get(Item, number)
        if item is None:
            raise _unknown(number)
        require_open(session, number)
        require_here(session, number)
        if item.encoder_id is None or item.image_id is None:
            raise NotExplainable(
                f"Item {number} has not been judged ({item.reason or 'it waits'}), so that there "
                "is nothing to explain yet."
            )
        policy = load_policy(session, session.get_one(Batch, item.batch_id).policy_id).policy
        known = [c.name for c in policy.classes]
        if class_name is not None and class_name not in known:
            raise typer.BadParameter(f"There is no class {class_name!r}, only {', '.join(known)}.")
        worst = None if item.class_id is None else session.get_one(PolicyClass, item.class_id).name
        encoder = session.get_one(StoredEncoder, item.encoder_id)
        digest = session.get_one(StoredImage, item.image_id).digest
        if digest is None:
            raise NotExplainable(f"Item {number} was erased: there is nothing left to explain.")
        return _Judged(
            number=number,
            digest=digest,
            policy=policy,
            class_name=class_name or worst or known[0],
            encoder_id=encoder.id,
            encoder=encoder.name,
            fingerprint=encoder.fingerprint,
            decoder=decoder_of(encoder),
        )


def _pictures(place: Workplace, audit: "Audit") -> "dict[str, PIL.Image.Image]":
    """The counterfactual images that are at hand, by digest."""
    found = {}
    for image in audit.record.images:
        try:
            found[image.digest] = decode(place.storage.get(image.digest)).frames[0].picture
        except FilterServiceError:  # the page says that it is missing
            continue
    return found


def _print_stored(place: Workplace, number: int, json_: bool) -> None:
    """The records as they were written when the item was judged."""
    with place.sessions.begin() as session:
        found = session.get(Item, number)
        if found is None:
            raise _unknown(number)
        query = select(StoredExplanation.record).where(StoredExplanation.item_id == number)
        records: list[dict[str, Any]] = list(session.scalars(query))
        why = reasons(session, [number]).get(number)
        if not records:
            require_here(session, number, RetainedPart.EXPLANATIONS)
        told = "" if records else unflagged.why(session, found)
    if json_:
        typer.echo(json.dumps(records))
        return
    typer.echo(f"{plain(found.source)}: {found.verdict or why}")
    for record in records:
        typer.echo(_sentences(Explanation.model_validate(record)))
    if told:
        typer.echo(told)


def _unknown(number: int) -> Exception:

    return UnknownItem(f"There is no item {number}; `filter-service items` lists them.")


def _sentences(record: Explanation) -> str:
    """What a record says, for a terminal."""
    words = [w for prompt in record.words for w in prompt.words]
    lines = [
        f"{record.class_name}: probability {record.probability:.3f} "
        f"(threshold {record.threshold}), margin {record.margin:.2f} logits"
        + ("" if record.calibrated else ", uncalibrated"),
        "  words: " + ", ".join(f"{w.word} {w.shapley:+.2f}" for w in words),
    ]
    if record.images:
        near = record.images[0]
        lines.append(f"  nearest clear image: {near.digest} at {near.degrees:.1f} degrees")
    else:
        lines.append(f"  {record.no_images}")
    proof = record.proof
    if proof.top_drop is not None:
        random = sum(proof.random_drops) / len(proof.random_drops)
        lines.append(
            f"  removing the marked tenth lowers the evidence by {proof.top_drop:.2f}, "
            f"a random tenth by {random:.2f}. {tested(record)}"
        )
    if said := necessary(record, outlined=False):
        lines.append(f"  {said}")
    return "\n".join(lines)
