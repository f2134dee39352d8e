"""Flagged and overturned shares by slices of what was judged: attributes, or prompts."""

from filter_service.audit.slices.slice_report import (
    SliceReport,
    attribute_names,
    by_attribute,
    by_prompts,
)

__all__ = ["SliceReport", "attribute_names", "by_attribute", "by_prompts"]
