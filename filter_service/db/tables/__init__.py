"""The database's tables as SQLAlchemy classes, one file for each part of the service.

All are declared as soon as this package is imported, since they refer to each other.
"""

from filter_service.db.tables.accounts import ApiKey, Client, Login, LoginFailure, Person, Reveals
from filter_service.db.tables.batches import (
    Batch,
    Fetch,
    IdempotencyKey,
    Item,
    ItemAttribute,
    QueueEntry,
)
from filter_service.db.tables.calibration import (
    StoredEstimate,
    StoredLabel,
    StoredWatch,
    TrainingLabel,
)
from filter_service.db.tables.columns import Digest, Float16s, Float32s, Table
from filter_service.db.tables.encoders import (
    Embedding,
    StoredCheck,
    StoredEncoder,
    StoredPhrase,
    StoredScore,
)
from filter_service.db.tables.explanations import StoredExplanation
from filter_service.db.tables.images import LooseBytes, StoredImage
from filter_service.db.tables.ledger import (
    LedgerEntry,
    LedgerPayload,
    LedgerRow,
    SealedEntry,
    StoredCheckpoint,
    StoredSigner,
    Tile,
    UnsealedEntry,
)
from filter_service.db.tables.policies import (
    Activation,
    PolicyClass,
    PolicyShadow,
    PolicyVersion,
    ShadowFlag,
    StoredPolicy,
)
from filter_service.db.tables.retention import Erasure, LegalHold, RetentionRule
from filter_service.db.tables.reviews import (
    Appeal,
    ListEntry,
    Report,
    Restriction,
    Review,
    ReviewCase,
    ReviewOutcome,
    ReviewRule,
    Tally,
)
from filter_service.db.tables.statements import StatementDue, StoredStatement
from filter_service.db.tables.webhooks import (
    Delivery,
    DeliveryAttempt,
    OutboxEvent,
    WebhookEndpoint,
)

__all__ = [
    "Activation",
    "ApiKey",
    "Appeal",
    "Batch",
    "Client",
    "Delivery",
    "DeliveryAttempt",
    "Digest",
    "Embedding",
    "Erasure",
    "Fetch",
    "Float16s",
    "Float32s",
    "IdempotencyKey",
    "Item",
    "ItemAttribute",
    "LedgerEntry",
    "LedgerPayload",
    "LedgerRow",
    "LegalHold",
    "ListEntry",
    "Login",
    "LoginFailure",
    "LooseBytes",
    "OutboxEvent",
    "Person",
    "PolicyClass",
    "PolicyShadow",
    "PolicyVersion",
    "QueueEntry",
    "Report",
    "Restriction",
    "RetentionRule",
    "Reveals",
    "Review",
    "ReviewCase",
    "ReviewOutcome",
    "ReviewRule",
    "SealedEntry",
    "ShadowFlag",
    "StatementDue",
    "StoredCheck",
    "StoredCheckpoint",
    "StoredEncoder",
    "StoredEstimate",
    "StoredExplanation",
    "StoredImage",
    "StoredLabel",
    "StoredPhrase",
    "StoredPolicy",
    "StoredScore",
    "StoredSigner",
    "StoredStatement",
    "StoredWatch",
    "Table",
    "Tally",
    "Tile",
    "TrainingLabel",
    "UnsealedEntry",
    "WebhookEndpoint",
]
