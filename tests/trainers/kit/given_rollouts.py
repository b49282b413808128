"""Plugins of verifiers: tasks from a file, and an agent whose one answer is given, not sampled."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web
from verifiers.v1 import Harness, HarnessConfig, Task, TaskData, Taskset, TasksetConfig
from verifiers.v1.clients import ModelContext
from verifiers.v1.dialects.chat import message_to_wire
from verifiers.v1.runtimes import ProgramResult

__all__ = ["GivenHarness", "GivenTaskset"]


class GivenConfig(TasksetConfig):
    """Of the tasks."""

    rows: Path = Path()
    """A list of prompts, each a list of messages."""


class GivenTask(Task[TaskData]):
    """Has no rewards but those of its judges."""


class GivenTaskset(Taskset[GivenTask, GivenConfig]):
    """A task for each prompt of a file."""

    def load(self) -> Iterable[GivenTask]:
        for prompt in json.loads(self.config.rows.read_text()):
            yield GivenTask(TaskData(prompt=prompt), self.config.task)


class GivenHarness(Harness[HarnessConfig]):
    """An agent that asks the model once, in this process."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: ModelContext,
        trace: Any,
        runtime: Any,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: TaskData,
    ) -> ProgramResult:
        messages = [message_to_wire(message) for message in data.prompt]
        body = {"model": ctx.model, "messages": messages, "user": str(data.idx)}
        authorization = {"Authorization": f"Bearer {secret}"}
        async with httpx.AsyncClient(timeout=None) as client:
            url = f"{endpoint}/chat/completions"
            (await client.post(url, json=body, headers=authorization)).raise_for_status()
        return ProgramResult(exit_code=0, stdout="", stderr="")


@asynccontextmanager
async def model(responses: list[str]) -> AsyncIterator[str]:
    """A model's endpoint, which answers ``user`` N with response N; yields its address."""

    async def answer(request: web.Request) -> web.Response:
        content = responses[int((await request.json())["user"])]
        message = {"role": "assistant", "content": content}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        head = {"id": "given", "object": "chat.completion", "created": 0, "model": "given"}
        return web.json_response({**head, "choices": [choice]})

    app = web.Application(client_max_size=2**30)
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()
