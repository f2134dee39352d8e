"""Search over HTTP: `/v1/search`."""

from fastapi import APIRouter

router = APIRouter(prefix="/v1")
