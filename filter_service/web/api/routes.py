"""All resources of the API, in the order of its documentation."""

from filter_service.web.api import (
    appeals,
    batches,
    erasures,
    explanations,
    policies,
    reports,
    search,
    statements,
    webhooks,
)

RESOURCES = (
    batches,
    explanations,
    search,
    policies,
    webhooks,
    reports,
    appeals,
    statements,
    erasures,
)
