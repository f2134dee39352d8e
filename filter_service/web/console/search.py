"""Search by words or by an image."""

from fastapi import APIRouter

router = APIRouter()
