"""How the service fares, and what could not be judged."""

from fastapi import APIRouter

router = APIRouter()
