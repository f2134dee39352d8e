"""Fetching what URIs refer to: from allowed hosts only, at public addresses only, within limits.

`check` says whether a URI may be fetched at all, `get` fetches one, `fetch_due` those that wait.
"""

from filter_service.fetching.download import get
from filter_service.fetching.due import fetch_due
from filter_service.fetching.internet import Internet, Resolver
from filter_service.references import AllowList, Reference, check, parse, shown

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
