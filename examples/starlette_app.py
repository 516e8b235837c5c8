"""A Starlette app with a scheduler in its lifespan. It needs nothing of FastAPI, and any ASGI server will do.

pip install clepsydra starlette uvicorn
uvicorn examples.starlette_app:app
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from clepsydra import Every, Scheduler, current_execution

scheduler = Scheduler()
beats: list[str] = []


@scheduler.job(Every(seconds=0.05), name="beat")
async def beat() -> None:
    """Note each nominal time."""
    beats.append(str(current_execution().nominal))


@scheduler.task(name="count_words")
def count_words(text: str) -> int:
    """A plain function: it runs in a thread."""
    return len(text.split())


async def words(request: Request) -> JSONResponse:
    """Run a task and wait for what it gives."""
    handle = await scheduler.enqueue(count_words.call((await request.body()).decode()))
    return JSONResponse({"words": await handle.result(timeout=10)})


async def show_beats(_: Request) -> JSONResponse:
    """What the job has noted."""
    return JSONResponse(beats)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncGenerator[None]:
    """Start with the app, drain with it."""
    async with scheduler:
        yield


app = Starlette(lifespan=lifespan, routes=[Route("/words", words, methods=["POST"]), Route("/beats", show_beats)])
