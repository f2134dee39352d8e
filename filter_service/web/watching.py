"""For the operator's machines: `/metrics` for Prometheus, `/live` and `/ready`."""

from fastapi import APIRouter

router = APIRouter()
