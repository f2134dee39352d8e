"""Webhooks: what happens here is told to the platforms, signed, in order, and until it arrives.

`announce` writes an event to the outbox in the transaction in which it happened;
`delivering.deliver_due` sends what is due. Messages follow the Standard Webhooks specification.
"""

from filter_service.webhooks.delivery_log import (
    Attempt,
    Delivered,
    Page,
    State,
    deliveries,
    redeliver,
)
from filter_service.webhooks.endpoints import (
    Endpoint,
    EventType,
    add_endpoint,
    endpoint,
    endpoints,
    remove,
    retry,
)
from filter_service.webhooks.outbox import announce, announce_finished, ping

__all__ = [
    "Attempt",
    "Delivered",
    "Endpoint",
    "EventType",
    "Page",
    "State",
    "add_endpoint",
    "announce",
    "announce_finished",
    "deliveries",
    "endpoint",
    "endpoints",
    "ping",
    "redeliver",
    "remove",
    "retry",
]
