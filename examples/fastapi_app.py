"""A FastAPI app with a scheduler in its lifespan: jobs, one-off work from a request, a health endpoint.

    pip install clepsydra fastapi uvicorn
    uvicorn examples.fastapi_app:app

The scheduler starts before the first request and drains after the last one. With several uvicorn workers each has a
scheduler of its own; they share the file, and each nominal time fires in one of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI, HTTPException, Response

from clepsydra import Cron, ExecutionNotFound, Retry, Scheduler, SQLiteStorage

scheduler = Scheduler(SQLiteStorage("jobs.db"))


@scheduler.job(Cron("*/5 * * * *"), name="purge-sessions", timeout=timedelta(seconds=30))
async def purge_sessions() -> None:
    """Something that has to happen now and then."""


@scheduler.task(name="mail.welcome")
def send_welcome(user_id: int) -> str:
    """A plain function: it runs in a thread, and may block there."""
    return f"welcome, user {user_id}"


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    """Everything between enter and exit of this has a running scheduler."""
    async with scheduler:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/users/{user_id}/welcome", status_code=202)
async def welcome(user_id: int) -> dict[str, str]:
    """Enqueue a mail. It is on the disk when this answers; a second request while it waits adds no second mail."""
    handle = await scheduler.enqueue(
        send_welcome.call(user_id=user_id), key=f"welcome:{user_id}", retry=Retry(attempts=5)
    )
    return {"execution": handle.id}


@app.get("/executions/{execution_id}")
async def execution(execution_id: str) -> dict[str, str | None]:
    """What became of it."""
    try:
        found = await scheduler.get_execution(execution_id)
    except ExecutionNotFound as error:
        raise HTTPException(404, str(error)) from None
    return {"state": found.state, "result": found.result, "error": found.error}


@app.get("/health")
async def health(response: Response) -> dict[str, object]:
    """Never waits for the store."""
    now = scheduler.health()
    response.status_code = 200 if now.ok else 503
    return {"status": now.status, "reasons": list(now.reasons)}
