"""Every error that this service raises on purpose.

    FilterServiceError
    ├── Transient               may pass by itself: try again
    │   ├── DatabaseUnavailable
    │   ├── BrokerUnavailable
    │   ├── StorageUnavailable
    │   ├── ModelUnavailable    the weights cannot be downloaded now
    │   └── AddressUnavailable  a server of somebody else's does not answer
    └── Permanent               will fail again until somebody changes something
        ├── InvalidSettings
        ├── InvalidPolicy
        ├── UnknownPolicy
        ├── UnknownItem
        ├── UnknownBatch
        ├── UnknownPerson
        ├── UnknownEntry        no such key, rule, list entry, appeal, webhook or delivery
        ├── InvalidRequest      what somebody asked for breaks a rule
        ├── ContentGone         it was deleted, as a rule or a request said
        ├── Conflict            somebody else was quicker, or it is too late
        ├── NotSignedIn
        ├── NotAllowed          this person's role, classes or cap forbid it
        ├── TooManyTries        wait before trying again
        ├── UnsafeAddress       nothing is fetched from there
        ├── UnknownModel        open_clip cannot load what was asked for
        ├── NotExplainable      no such explanation for this architecture
        ├── AnotherEncoder      the record names an encoder that is not the one at hand
        ├── ProcessFailed       a process of ours ends again and again
        ├── BrokenLedger        what was sealed is not what is there now
        ├── InvalidStatement    a statement of reasons breaks a rule of the database it is for
        ├── DatabaseOutdated    migrations are missing
        └── ImageError          this one image cannot be judged: it becomes *undetermined*
            ├── UnreadableImage
            └── ImageTooLarge

The message is one sentence that names the value, what was expected and what to do. Errors take
plain arguments only, so that they survive pickling on the way through a worker. Where
it names a path or an address of ours, clients are told the class's `public` sentence instead.
"""

from typing import ClassVar


class FilterServiceError(Exception):
    """Anything this service raises on purpose."""

    public: ClassVar[str | None] = None  # for clients, where the message names paths or addresses


def for_clients(error: FilterServiceError) -> str:
    """What those are told who do not run this service; its log has the message."""
    return error.public or str(error)


class Transient(FilterServiceError):
    """May pass by itself: try again."""


class DatabaseUnavailable(Transient):
    """Postgres does not answer."""

    public = "The database does not answer: try again soon, or tell who runs this service."


class BrokerUnavailable(Transient):
    """Redis does not answer."""

    public = "The broker does not answer: try again soon, or tell who runs this service."


class StorageUnavailable(Transient):
    """The image store does not answer."""

    public = "The image store does not answer: try again soon, or tell who runs this service."


class ModelUnavailable(Transient):
    """The weights of a model cannot be downloaded now."""

    public = "The model cannot be loaded: try again soon, or tell who runs this service."


class AddressUnavailable(Transient):
    """A server of somebody else's does not answer."""


class Permanent(FilterServiceError):
    """Will fail again until somebody changes something."""


class InvalidSettings(Permanent):
    """A setting is missing or wrong."""

    public = "The service is not set up for this: tell who runs it."


class InvalidPolicy(Permanent):
    """A policy file breaks a rule; the message names file, line and field."""


class UnknownPolicy(Permanent):
    """No stored policy has this name or digest."""


class UnknownItem(Permanent):
    """No item has this id."""


class UnknownBatch(Permanent):
    """No batch has this id."""


class UnknownModel(Permanent):
    """open_clip cannot load what was asked for."""


class NotExplainable(Permanent):
    """What was asked cannot be explained on this architecture."""


class AnotherEncoder(Permanent):
    """The record names an encoder that is not the one at hand."""


class ProcessFailed(Permanent):
    """A process that a command started ends again and again; the message names it."""


class BrokenLedger(Permanent):
    """What was sealed is not what is there now; the message names the first place."""


class InvalidStatement(Permanent):
    """A statement of reasons breaks a rule of the database it is for."""


class UnknownPerson(Permanent):
    """Nobody has this log-in name."""


class UnknownEntry(Permanent):
    """No key, rule, list entry, appeal, webhook or delivery has this id."""


class InvalidRequest(Permanent):
    """What somebody asked for breaks a rule; the message says which."""


class Conflict(Permanent):
    """Somebody else was quicker, or it is too late."""


class ContentGone(Permanent):
    """It was deleted; the message says when, and under which rule or request."""


class NotSignedIn(Permanent):
    """Nobody knows who is asking."""


class NotAllowed(Permanent):
    """This person's role, classes or cap forbid it."""


class TooManyTries(Permanent):
    """Wait before trying again; the message says how long."""


class UnsafeAddress(Permanent):
    """Nothing is fetched from this address, nor sent to it."""


class DatabaseOutdated(Permanent):
    """The database lacks migrations that this code needs."""

    public = "The database is being brought up to date: try again soon, or tell who runs it."


class ImageError(Permanent):
    """This one image cannot be judged."""


class UnreadableImage(ImageError):
    """The bytes are not an image that can be decoded."""


class ImageTooLarge(ImageError):
    """More bytes, pixels or frames than the limits allow."""
