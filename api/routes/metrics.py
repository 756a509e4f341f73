"""`/metrics` on the main port, in development only: production shows it on a port of its own."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response

from shared.metrics import render

PATH = "/metrics"

router = APIRouter(tags=["operation"])


@router.get(
    PATH,
    operation_id="getMetrics",
    summary="Prometheus text",
    response_class=Response,
    include_in_schema=False,
)
async def get_metrics() -> Response:
    body, content_type = await asyncio.to_thread(render)
    return Response(body, media_type=content_type, headers={"cache-control": "no-store"})
