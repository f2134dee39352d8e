"""One case: its page, and deciding it."""

from fastapi import APIRouter

router = APIRouter()
