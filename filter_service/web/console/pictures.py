"""Images as the pages show them: blurred unless revealed, and maps."""

from fastapi import APIRouter

router = APIRouter()
