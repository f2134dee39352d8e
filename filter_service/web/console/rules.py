"""Review rules, and the allow and block lists."""

from fastapi import APIRouter

router = APIRouter()
