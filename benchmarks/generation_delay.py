"""Measure how soon clients of a service receive the first tokens of their answers.

``bench_generation.py`` runs it.
"""

import asyncio
import json
import threading
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from transformers import TextIteratorStreamer


def make_bare_app(causal: Any, tokenizer: Any) -> Any:  # noqa: ANN401 - a model's and FastAPI's
    """Make a service that streams each answer from a thread, without probes."""
    app = FastAPI()

    @app.post("/generate")
    def generate(asked: dict[str, Any]) -> StreamingResponse:
        encoded = tokenizer(asked["prompt"], return_tensors="pt")
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
        options = {"max_new_tokens": asked["max_new_tokens"], "do_sample": False}
        threading.Thread(
            target=causal.generate,
            kwargs={**encoded, **options, "use_cache": True, "streamer": streamer},
        ).start()
        events = (f"data: {json.dumps({'token': piece})}\n\n" for piece in streamer)
        return StreamingResponse(events, media_type="text/event-stream")

    return app


async def time_first_tokens(app: Any, prompts: Sequence[str]) -> list[float]:  # noqa: ANN401 - FastAPI's
    """Ask for all answers at once over loopback; return seconds to each first token."""
    config = uvicorn.Config(app, port=0, log_level="error")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]

    async def ask(prompt: str) -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps({"prompt": prompt, "max_new_tokens": 16}).encode()
        head = "POST /generate HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        start = perf_counter()
        writer.write(head.encode() + body)
        while not (await reader.readline()).startswith(b"data:"):
            pass
        delay = perf_counter() - start
        await reader.read()
        writer.close()
        return delay

    delays = await asyncio.gather(*map(ask, prompts))
    server.should_exit = True
    await task
    return list(delays)
