"""Webhooks: signed notifications of platforms, in order, retried until they arrive.

`announce` writes an event to the outbox in the transaction in which it happened;
`delivery.deliver_due` sends what is due. Messages follow the Standard Webhooks specification.
"""

from filter_service.webhooks.delivery_log import DeliveryEntry, DeliveryState, deliveries, redeliver
from filter_service.webhooks.endpoints import (
    Endpoint,
    EventType,
    add_endpoint,
    endpoint,
    endpoints,
    remove,
    retry,
)
from filter_service.webhooks.outbox import announce, announce_finished, is_wanted, ping

__all__ = [
    "DeliveryEntry",
    "DeliveryState",
    "Endpoint",
    "EventType",
    "add_endpoint",
    "announce",
    "announce_finished",
    "deliveries",
    "endpoint",
    "endpoints",
    "is_wanted",
    "ping",
    "redeliver",
    "remove",
    "retry",
]
