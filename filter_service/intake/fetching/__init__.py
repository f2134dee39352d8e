"""Fetches images from URIs: allowed hosts and public addresses only, within limits.

`check` says whether a URI may be fetched at all, `get` fetches one, `fetch_due` those that wait.
"""

from filter_service.egress.client import Internet, Resolver
from filter_service.egress.uri_rules import AllowList, Reference, check, parse, shown
from filter_service.intake.fetching.download import get
from filter_service.intake.fetching.fetch_queue import fetch_due

__all__ = [
    "AllowList",
    "Internet",
    "Reference",
    "Resolver",
    "check",
    "fetch_due",
    "get",
    "parse",
    "shown",
]
