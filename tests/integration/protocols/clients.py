"""What the trainers' own clients do on the wire, and what they make of an answer.

Written from the shapes that they send and read. Their waits between tries are left out or made
short; everything else, the number of tries, which statuses are tried again, sockets, is theirs.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, Protocol

import aiohttp

Json = dict[str, Any]

PAUSE_SECONDS = 0.05
NO_TIMEOUT = aiohttp.ClientTimeout(total=None)


class Failed(Exception):
    """The trainer's job would stop here, or its sample would have no reward."""


class Client(Protocol):
    """Scores one pair at a time: its rendered text, its prompt and its response."""

    async def reward(self, text: str, prompt: str, response: str) -> float: ...

    async def close(self) -> None: ...


class OneSessionAPost:
    """OpenRLHF and verl make a session, and so a connection, for every single POST."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.posts = 0

    async def _post(self, path: str, body: Json, patience: aiohttp.ClientTimeout) -> Any:
        self.posts += 1
        async with (
            aiohttp.ClientSession(timeout=patience) as session,
            session.post(self.url + path, json=body) as response,
        ):
            response.raise_for_status()
            return await response.json()

    async def close(self) -> None:
        """Nothing is open between two posts."""


class OpenRlhf(OneSessionAPost):
    """Five tries whatever the error, then no reward."""

    tries = 5

    async def reward(self, text: str, prompt: str, response: str) -> float:
        body = {"query": [text], "prompts": [prompt], "labels": [None]}
        for _ in range(self.tries):
            try:
                answer = await self._post("/get_reward", body, aiohttp.ClientTimeout(total=180))
            except aiohttp.ClientError:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            return self._checked(answer)
        raise Failed("no reward after five tries")

    def _checked(self, answer: Json) -> float:
        for values in (answer["rewards"], answer["scores"], *answer["extra_logs"].values()):
            (value,) = values  # a list of one plain number, or the rollout dies
            assert isinstance(value, int | float), value
            assert math.isfinite(value)
        assert 0 <= answer["scores"][0] <= 1
        return float(answer["rewards"][0])


class Verl(OneSessionAPost):
    """Sixteen tries, none after a 4xx; reads the last element of the last entry."""

    tries = 16
    path = "/classify"

    async def reward(self, text: str, prompt: str, response: str) -> float:
        for _ in range(self.tries):
            try:
                answer = await self._post(self.path, self._body(text), NO_TIMEOUT)
            except aiohttp.ClientResponseError as error:
                if error.status < 500:
                    raise Failed(f"status {error.status}") from error
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            return self._read(answer)
        raise Failed("no answer after sixteen tries")

    def _body(self, text: str) -> Json:
        # It takes one BOS off before it sends a text.
        text = text.removeprefix("<|begin_of_text|>")
        return {"model": "/models/rm", "input": text, "use_activation": False}

    def _read(self, answer: Json) -> float:
        return float(answer["data"][-1]["probs"][-1])


class VerlOnSglang(Verl):
    path = "/v1/embeddings"

    def _read(self, answer: Json) -> float:
        return float(answer["data"][-1]["embedding"][-1])


class OneSession:
    """Slime and NeMo-Gym keep one session; none of their posts has to be sent twice."""

    limit = limit_per_host = 0

    def __init__(self, url: str) -> None:
        self.url = url
        self._session: aiohttp.ClientSession | None = None

    async def _post(self, path: str, body: Json) -> Any:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self.limit, limit_per_host=self.limit_per_host)
            self._session = aiohttp.ClientSession(connector=connector, timeout=NO_TIMEOUT)
        async with self._session.post(self.url + path, json=body) as answer:
            answer.raise_for_status()
            return await answer.json()  # which insists on application/json

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class Slime(OneSession):
    """The parsed JSON is the reward."""

    limit = 64

    async def reward(self, text: str, prompt: str, response: str) -> float:
        body = {"prompt": prompt, "response": response, "label": None}
        value = await self._post("/reward", body)
        assert type(value) is float
        return value


class NemoGym(OneSession):
    """The reward must be the sum of its components."""

    limit_per_host = 1024

    async def reward(self, text: str, prompt: str, response: str) -> float:
        said = {"type": "output_text", "text": response, "annotations": []}
        output = [{"type": "message", "role": "assistant", "content": [said]}]
        body = {
            "responses_create_params": {"input": [{"role": "user", "content": prompt}]},
            "response": {"object": "response", "output": output},
            "task": {"id": 7},
        }
        answer = await self._post("/verify", body)
        assert {name: answer[name] for name in body} == body
        total = sum(answer["reward_components"].values())
        assert math.isclose(answer["reward"], total, rel_tol=1e-5)
        return float(answer["reward"])


CLIENTS: dict[str, type[OpenRlhf | Verl | Slime | NemoGym]] = {
    "openrlhf": OpenRlhf,
    "verl": Verl,
    "verl on sglang": VerlOnSglang,
    "slime": Slime,
    "nemo-gym": NemoGym,
}


async def all_rewards(client: Client, asked: list[tuple[str, str, str]]) -> list[float]:
    """What a trainer gets that asks for everything at once."""
    try:
        return await asyncio.gather(*(client.reward(*one) for one in asked))
    finally:
        await client.close()


async def posted_at_once(
    host: str, port: int, requests: list[tuple[str, bytes]]
) -> list[tuple[int, bytes]]:
    """Status and body of each request, each on a connection of its own, all open together."""
    connections = await asyncio.gather(*(asyncio.open_connection(host, port) for _ in requests))

    async def ask(path: str, body: bytes, place: int) -> tuple[int, bytes]:
        reader, writer = connections[place]
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        head, _, content = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return int(head.split(b" ", 2)[1]), content

    return await asyncio.gather(*(ask(*one, i) for i, one in enumerate(requests)))
