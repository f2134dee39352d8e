"""The routes of the interface, in the order in which its description shows them."""

from filter_service.web.api import (
    appeals,
    batches,
    erasures,
    explanations,
    search,
    webhooks,
)

RESOURCES = (batches, explanations, search, webhooks, appeals, erasures)
