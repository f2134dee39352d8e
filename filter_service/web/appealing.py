"""Appeals over HTTP: `/v1/items/{id}/appeals`."""

from fastapi import APIRouter

router = APIRouter(prefix="/v1")
