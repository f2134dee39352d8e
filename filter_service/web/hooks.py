"""Webhooks over HTTP: endpoints, deliveries, redelivery."""

from fastapi import APIRouter

router = APIRouter(prefix="/v1")
