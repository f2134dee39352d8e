"""People and API keys."""

from fastapi import APIRouter

router = APIRouter()
