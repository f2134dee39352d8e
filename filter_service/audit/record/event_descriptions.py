"""Describes every kind of ledger event in a sentence for readers."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from filter_service.db.tables import LedgerEntry
from filter_service.ledger import Event

ERASED = "What this entry said is gone; its commitment is intact."


class RecordChapter(StrEnum):
    """Where in the record an entry is told."""

    SUBMITTED = "submitted"
    SCORED = "scored"
    EXPLAINED = "explained"
    SEEN = "seen"
    DECIDED = "decided"
    REPORTED = "reported"
    APPEALED = "appealed"
    STATED = "stated"
    NOTIFIED = "notified"
    JUDGED_ANEW = "judged anew"
    KEPT = "kept"
    CHECKED = "checked"
    AROUND = "around"  # what decides about items, but is about none


# {name}: a detail, or `who`. [What stands so] is left out where a detail in it is missing or null.
SENTENCES: dict[Event, str] = {
    Event.SUBMITTED: "{who} submitted it[; the SHA-256 of its bytes begins {digest}].",
    Event.CANCELLED: "{who} took it back before it was judged.",
    Event.FETCHED: "{who} fetched {bytes} bytes[ from {uri}][; their SHA-256 begins {digest}].",
    Event.JUDGED: "{who} judged it {verdict}[: {class}, probability {probability}][, margin "
    "{margin} logits][; {fully_automated}].[ {notes}.]",
    Event.FAILED: "It could not be judged and became undetermined: {reason}.",
    Event.RETRIED: "{who} had it judged again[, after: {reason}].",
    Event.LIST_DECIDED: "An entry of a list decided[: {decision}][ for {class}][, entry {entry}]"
    "[, by {match}].",
    Event.LOCKED_AWAY: "It was locked away[: {class}][, to be kept until {until}].",
    Event.EXPLAINED: "{who} explained why[: {class}; its map {faithful}][; the SHA-256 of the "
    "explanation begins {record}].",
    Event.OPENED: "It was put before people[ for a {stage}][, for {class}].",
    Event.CLAIMED: "{who} took the case[ for a {stage}].",
    Event.RELEASED: "{who} gave the case back.",
    Event.HANDED_OVER: "{who} gave the case to {to}.",
    Event.REVEALED: "{who} saw the picture unblurred[, for {class}].",
    Event.SEALED_READ: "{who} looked at what is locked away[: {what}].",
    Event.DECIDED: "{who} decided: {decision}[, in a {stage}][; reason: {reason}].",
    Event.UNDONE: "{who} took the decision back[, review {review}].",
    Event.SETTLED: "The decision took effect[: {decision}][, then {next}].",
    Event.LISTED: "{who} put it on a list[: {kind}][ for {class_name}][, matched by {match}]"
    "[; reason: {reason}].",
    Event.UNLISTED: "{who} took entry {entry} off its list.",
    Event.APPEALED: "{who} opened an appeal.",
    Event.APPEAL_CLOSED: "The appeal was closed[: {upheld}].",
    Event.REPORTED: "{who} reported it[, as {reported_as}][, for {class}].",
    Event.REPORT_CLOSED: "A report was answered: {final}.",
    Event.STATED: "{who} issued a statement of reasons[ in {language}][, {puid}].",
    Event.STATEMENT_WITHDRAWN: "{who} withdrew a statement of reasons[, {puid}].",
    Event.REDELIVERED: "{who} had a message sent once more[ to webhook {webhook}].",
    Event.REEVALUATED: "{who} had it judged again under another policy[, as item {item}]"
    "[, from item {supersedes}].",
    Event.REOPENED: "{who} put it before a person again, for another policy[: {policy}].",
    Event.HELD: "{who} put a legal hold on it[: {reason}].",
    Event.HOLD_RELEASED: "{who} released the legal hold[: {reason}].",
    Event.EXPIRED: "Its time was over, and part of it was deleted[: {parts}].",
    Event.ERASED: "{who} had it erased[: {reason}].",
    Event.REPLAYED: "{who} computed it again[: {result}][, {differences} differences].",
    Event.RECORD_READ: "{who} read this record[ as a {as}].",
    Event.SEARCHED: "{who} searched[ for “{words}”][ for what is like item {like}]"
    "[ for an image, {image}][ in the ledger, {ledger}].",
    Event.EXPORTED: "{who} exported[ {what}][ as {format}][: {rows} rows][, {state}].",
    Event.LABELLED: "{who} said what {images} images show[, under policy {policy}]: {new} labels "
    "are new[, {unchanged} were known].",
    Event.RULE_ADDED: "{who} added review rule {rule}[: {kind}][ for {class_name}].",
    Event.RULE_REMOVED: "{who} removed review rule {rule}.",
    Event.POLICY_PROPOSED: "{who} proposed a version of the policy {name}[: {policy}]"
    "[; reason: {reason}].",
    Event.SHADOW_STARTED: "{who} let a version of the policy {name} run in the shadow[: {policy}].",
    Event.SHADOW_ENDED: "{who} ended the shadow of a version of the policy {name}[: {policy}].",
    Event.DRIFT_ACCEPTED: "{who} accepted what comes now for the class {class} as its reference"
    "[: {alarm}].",
    Event.POLICY_WITHDRAWN: "{who} withdrew the proposed version of the policy {name}[: {policy}].",
    Event.POLICY_ACTIVATED: "{who} activated a version of the policy {name}[: {policy}]"
    "[; its flags: {flags}].",
    Event.RETENTION_ADDED: "{who} added a retention rule[: {parts}][ for {days} days].",
    Event.RETENTION_REMOVED: "{who} removed a retention rule[, {rule}].",
    Event.SIGNED_IN: "{who} signed in[ by {by}].",
    Event.PERSON_ADDED: "{who} added {login}[ as {role}].",
    Event.PERSON_CHANGED: "{who} changed what {login} may do or is.",
    Event.CLIENT_ADDED: "{who} added the client {name}.",
    Event.KEY_ADDED: "{who} made an API key[ called {name}][ for the client {client}]"
    "[; it sees {sees}][; it may {may}].",
    Event.KEY_REVOKED: "{who} revoked an API key[, {name}].",
    Event.WEBHOOK_ADDED: "{who} added a webhook[ at {url}].",
    Event.WEBHOOK_REMOVED: "{who} removed a webhook[ at {url}].",
    Event.SIGNER_ADDED: "A key began to sign checkpoints[: {vkey}].",
}

CHAPTERS: dict[RecordChapter, frozenset[Event]] = {
    RecordChapter.SUBMITTED: frozenset({Event.SUBMITTED, Event.FETCHED, Event.CANCELLED}),
    RecordChapter.SCORED: frozenset(
        {Event.JUDGED, Event.FAILED, Event.RETRIED, Event.LIST_DECIDED, Event.LOCKED_AWAY}
    ),
    RecordChapter.EXPLAINED: frozenset({Event.EXPLAINED}),
    RecordChapter.SEEN: frozenset(
        {
            *(Event.OPENED, Event.CLAIMED, Event.RELEASED, Event.HANDED_OVER, Event.REVEALED),
            Event.SEALED_READ,
        }
    ),
    RecordChapter.DECIDED: frozenset(
        {Event.DECIDED, Event.UNDONE, Event.SETTLED, Event.LISTED, Event.UNLISTED}
    ),
    RecordChapter.REPORTED: frozenset({Event.REPORTED, Event.REPORT_CLOSED}),
    RecordChapter.APPEALED: frozenset({Event.APPEALED, Event.APPEAL_CLOSED}),
    RecordChapter.STATED: frozenset({Event.STATED, Event.STATEMENT_WITHDRAWN}),
    RecordChapter.NOTIFIED: frozenset({Event.REDELIVERED}),
    RecordChapter.JUDGED_ANEW: frozenset({Event.REEVALUATED, Event.REOPENED}),
    RecordChapter.KEPT: frozenset({Event.HELD, Event.HOLD_RELEASED, Event.EXPIRED, Event.ERASED}),
    RecordChapter.CHECKED: frozenset(
        {Event.REPLAYED, Event.RECORD_READ, Event.SEARCHED, Event.EXPORTED}
    ),
}

_LEFT_OUT = re.compile(r"\[([^\[\]]*)\]")
_NAME = re.compile(r"\{(\w+)\}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UNKNOWN = "something that is not said"

_WORDS: dict[str, Mapping[object, str]] = {  # values that want another word
    "fully_automated": {
        True: "the flag acted by itself",
        False: "the flag could act by itself, and was left to a person",
    },
    "stage": {
        "first": "first look",
        "second": "second look",
        "senior": "senior's look",
        "appeal": "look on appeal",
    },
    "next": {
        "final": "nothing more: it is final",
        "first": "a first look again",
        "second": "a second look",
        "senior": "a senior's look",
        "appeal": "a look on appeal",
    },
    "reported_as": {
        "user": "a user's report",
        "trusted_flagger": "a trusted flagger's report",
        "authority": "an authority's report",
        "own": "something that its own people found",
    },
    "final": {"flagged": "it is forbidden", "clear": "it is not forbidden"},
    "upheld": {True: "the flag stands", False: "the flag does not stand"},
    "faithful": {True: "passed its test", False: "failed its test or there is none"},
    "kind": {"allow": "never to be flagged", "block": "always to be flagged"},
    "by": {"password": "a password", "provider": "the identity provider"},
}

_FIGURES = {"probability": ".4f", "margin": "+.3f", "bytes": ",", "rows": ","}


def chapter_of(event: str) -> RecordChapter:
    """Where an entry is told."""
    return next((c for c, events in CHAPTERS.items() if event in events), RecordChapter.AROUND)


def said_in(entry: LedgerEntry) -> dict[str, Any]:
    """What an entry says; nothing once it is erased, or where somebody put what is no object."""
    return entry.details if isinstance(entry.details, dict) else {}


def sentence(entry: LedgerEntry) -> str:
    """What happened, and who did it, as far as it was not erased."""
    if entry.details is None:
        return f"{_titled(entry.event)}. {ERASED}"
    try:
        written = SENTENCES[Event(entry.event)]
    except ValueError:  # of a release that came later
        return f"{_titled(entry.event)}, by {who(entry.actor)}."
    known = {name: v for name, v in said_in(entry).items() if v is not None and v != ""}
    return fill_sentence(written, {**known, "who": who(entry.actor)})


def fill_sentence(written: str, known: Mapping[str, Any]) -> str:
    """A sentence of the table with its details put in."""

    def if_known(part: re.Match[str]) -> str:
        return part[1] if all(name in known for name in _NAME.findall(part[1])) else ""

    def value(name: re.Match[str]) -> str:
        return _worded(name[1], known[name[1]]) if name[1] in known else _UNKNOWN

    # What is left out is decided first, and what is put in is never read as a pattern.
    sentence = _NAME.sub(value, _LEFT_OUT.sub(if_known, written))
    sentence = sentence[:-1] if sentence.endswith(("..", "?.", "!.", "….")) else sentence
    return sentence[:1].upper() + sentence[1:]


def who(actor: str | None) -> str:
    """Whoever did it, as people would say it."""
    if actor is None:
        return "somebody whose name was erased"
    kind, _, name = actor.partition(" ")
    match kind:
        case "person":
            return name
        case "key":
            return f"the platform {name}"
        case "worker":
            return f"worker {name[:8]}"
        case "service" | "platform":
            return f"the {kind}"
    return actor


def _worded(name: str, value: object) -> str:
    words = _WORDS.get(name, {})
    if isinstance(value, bool | str) and value in words:
        return words[value]
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_worded(str(k), v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value)
    if isinstance(value, float | int) and name in _FIGURES:
        return format(value, _FIGURES[name]).replace("-", "−")
    if _DIGEST.fullmatch(text := str(value)):
        return f"{text[:16]}…"  # the entry has it whole
    return who(text) if name == "to" else text


def _titled(event: str) -> str:
    return event[:1].upper() + event[1:]
