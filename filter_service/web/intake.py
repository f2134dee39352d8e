"""Batches and items over HTTP: `/v1/batches`, `/v1/items`."""

from fastapi import APIRouter

router = APIRouter(prefix="/v1")
