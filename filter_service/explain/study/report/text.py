"""Prints the audit of a decision as text for a terminal, without pictures."""

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from filter_service.explain.study.decision_audit import Audit
from filter_service.explain.study.report.report_charts import lowest, number, signed
from filter_service.verdicts import proven_claims

NEURONS = 5  # of those that were checked


def tell(audit: Audit, console: Console) -> None:
    """Print an audit; nothing that stands in a prompt is taken for markup."""
    r = audit.record
    verdict = ("flagged", "bold red") if audit.flagged else ("not flagged", "bold green")
    calibrated = "" if r.calibrated else " (not calibrated)"
    console.print(Text.assemble((r.class_name, "bold"), ": ", verdict))
    console.print(
        Text(
            f"probability {number(r.probability)}{calibrated}, flagged from {number(r.threshold)}; "
            f"margin {signed(r.margin)} logits, flagged from {signed(audit.threshold_margin)}"
        )
    )
    _maps(audit, console)
    _words(audit, console)
    _part(console, "What would have to be different", _otherwise(audit))
    _part(console, "How the model came to it", _inside(audit))
    _part(console, "The proof", _proof(audit))
    by = r.provenance
    _part(
        console,
        "Provenance",
        [
            f"encoder {by.encoder} {by.fingerprint[:12]}, policy {by.policy} "
            f"{by.policy_digest[:12]}, image {audit.digest[:12]}"
        ],
    )


def _maps(audit: Audit, console: Console) -> None:
    rows = [
        (m.name, m.refusal or "", "", "", "")
        if m.map is None
        else (
            m.name,
            "",
            signed(m.map.total),
            signed(m.map.remainder),
            signed(float(m.map.grid.max())),
        )
        for m in audit.maps
    ]
    if audit.maps:
        _table(console, ("map", "", "sum", "remainder", "strongest place"), rows)
    lines = []
    if audit.agreement is not None:
        lines.append(
            "baselines of integrated gradients agree with a rank correlation of "
            f"{number(lowest(audit.agreement), 2)} or more"
        )
    if (additivity := audit.additivity) is not None:
        lines.append(
            f"R² on held-out masks: places alone {number(additivity.r_squared, 2)}, with pairs "
            f"{number(additivity.with_pairs, 2)}"
            + ("" if additivity.additive else ": not explainable additively")
        )
    _part(console, "", lines)


def _words(audit: Audit, console: Console) -> None:
    rows = [
        (
            word.word,
            f"of “{prompt.prompt}”",
            signed(word.shapley),
            signed(word.substituted),
            signed(word.leave_one_out),
            "doubtful" if word.doubtful else "",
        )
        for prompt in audit.record.words
        for word in prompt.words
    ]
    _table(console, ("word", "", "deleted", "replaced", "left out alone", ""), rows)


def _otherwise(audit: Audit) -> Iterable[str]:
    r = audit.record
    if (region := audit.region) is not None:
        yield (
            f"{proven_claims.necessary(r, outlined=False)} Its margin: {signed(region.margin)} in "
            f"the mean colour, {signed(region.blurred_margin)} blurred"
        )
    if (enough := audit.sufficient) is not None and enough.flips and enough.blurred_flips:
        yield (
            f"with {len(enough.places)} places and nothing else it stays flagged: margin "
            f"{signed(enough.margin)}"
        )
    for image in r.images:
        yield (
            f"image {image.digest[:12]}, {number(image.degrees, 1)}° away: margin "
            f"{signed(image.margin)}"
        )
    for text in r.texts:
        yield f"“{text.text}” for “{text.replaces}”: margin {signed(text.margin)}"
    rewordings = audit.rewordings
    for edit in rewordings.edits if rewordings is not None else ():
        yield f"“{edit.text}” for “{edit.replaces}”: margin {signed(edit.margin)}"
    yield from filter(
        None, (r.no_images, r.no_texts, rewordings.none if rewordings is not None else None)
    )
    if audit.difference is not None and audit.difference.phrases:
        named = (f"{p.text} {signed(p.contribution)}" for p in audit.difference.phrases)
        yield f"in phrases, from the nearest image to this one: {', '.join(named)}"


def _inside(audit: Audit) -> Iterable[str]:
    if audit.contributions is not None:
        layers = (f"{n} {signed(v)}" for n, v in enumerate(audit.contributions.layers))
        yield f"what each layer added: {', '.join(layers)}"
    if audit.lens is not None:
        yield f"margin after every layer: {', '.join(signed(m) for m in audit.lens.margins)}"
    if audit.trace is not None:
        back = ", ".join(signed(v) for v in audit.trace.together)
        yield f"margin restored by the places that were taken out, layer by layer: {back}"
    if audit.neurons is not None:
        strongest = (
            f"{n.layer}.{n.unit} {signed(n.direct)} (measured {signed(n.ablated)})"
            for n in audit.neurons.neurons[:NEURONS]
        )
        yield f"strongest neurons: {', '.join(strongest)}"
    if audit.caption is not None:
        yield f"in the model's own words: “{audit.caption.text}”"
    yield from dict.fromkeys(audit.refused.values())


def _proof(audit: Audit) -> Iterable[str]:
    proof = audit.record.proof
    if proof.top_drop is None:
        yield audit.record.no_map or "there is no map, so there is nothing to test"
        return
    random = ", ".join(signed(d) for d in proof.random_drops)
    beginning = (
        f"without the marked tenth the margin loses {signed(proof.top_drop)}, without random "
    )
    yield f"{beginning}tenths {random}"
    if audit.flagged:
        yield proven_claims.tested(audit.record)


def _part(console: Console, title: str, lines: Iterable[str]) -> None:
    lines = list(lines)
    if not lines:
        return
    if title:
        console.print(Text(f"\n{title}", "bold"))
    for line in lines:
        console.print(Text(f"  {line}"))


def _table(console: Console, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        table.add_column(head, justify="left" if head in ("map", "word", "") else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
