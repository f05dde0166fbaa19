r"""Serve a fitted pipeline over HTTP: texts in, classes and probabilities out.

Run ``python examples/serve.py probe.joblib --port 8000``, and send it requests::

    curl localhost:8000/predict -H 'Content-Type: application/json' \
        -d '{"texts": ["Gold is a metal."]}'

The language model of the pipeline can also write. Each token is sent with the probe's
probabilities after it. The answer ends when the probability of the last class reaches
``stop``. Prompts that arrive together are answered in one batch::

    curl -N localhost:8000/generate -H 'Content-Type: application/json' \
        -d '{"prompt": "Gold is", "max_new_tokens": 20, "stop": 0.9}'

The most probable token is written, unless ``temperature`` or ``top_p`` is given: the
tokens are then sampled, and ``seed`` repeats an answer. An answer with a seed is
written by itself.

The last event says why the answer ends: "probe", "length", "eos", "time" for the time
limit, or "reader" if the client reads too slowly.

A joblib file is a pickle, which runs code when it is loaded: load only files you trust.
The files of ``save_artifacts`` cannot run code; give the path or address that
``load_artifacts`` takes. This example needs the extra ``[serve]``.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import joblib
from answer_streams import Answer, AnswerStreams, Write
from micro_batching import Closed, Full, MicroBatcher
from pydantic import BaseModel, ConfigDict, Field
from sklearn.pipeline import Pipeline

from plug_sklearn import load_artifacts, stream_with_probes

try:
    import uvicorn
    from fastapi import FastAPI, HTTPException, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse, StreamingResponse
except ImportError as error:
    raise SystemExit(f"{error}. Run: pip install -e '.[serve]'") from error

#: Most bytes of a too large body that are read and dropped before the answer. A client
#: that is still sending would not read it.
DROPPED_BYTES = 2**24
MOST_SAID = 300
#: Suffixes of the files of ``save_artifacts``.
SUFFIXES = (".json", ".safetensors")


@dataclass(frozen=True)
class Limits:
    """Limits of one request, and of what may wait."""

    texts: int = 64
    characters: int = 20_000
    body_bytes: int = 2**20
    body_seconds: float = 30.0
    batch_texts: int = 64
    wait_ms: float = 2.0
    waiting_texts: int = 1024
    answers: int = 8
    batch_answers: int = 8
    answer_tokens: int = 512
    answer_seconds: float = 120.0


class LimitBody:
    """Reads the body of each request first, and refuses a request that is too large.

    Both the declared length and the bytes received are checked, because a body that is
    sent in chunks has no declared length.
    """

    def __init__(self, app: Any, limits: Limits) -> None:  # noqa: ANN401 - any ASGI app
        self.app = app
        self.limits = limits

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                body = await self._read(scope, receive)
        except TimeoutError:
            refusal = JSONResponse({"detail": "The body was sent too slowly."}, 408)
            await refusal(scope, receive, send)
            return
        if body is None:
            said = f"The body must have at most {self.limits.body_bytes} bytes."
            await JSONResponse({"detail": said}, 413)(scope, receive, send)
            return
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> dict[str, Any]:
            return messages.pop() if messages else await receive()

        await self.app(scope, replay, send)

    async def _read(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
    ) -> bytes | None:
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        n_bytes, chunks, more = 0, [], True
        if int(declared) > DROPPED_BYTES:
            return None
        while more and n_bytes <= DROPPED_BYTES:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            n_bytes += len(chunk)
            more = message.get("more_body", False)
            if n_bytes <= self.limits.body_bytes:
                chunks.append(chunk)
        return b"".join(chunks) if n_bytes <= self.limits.body_bytes else None


def load_probe(path: str, device: str = "cpu") -> Pipeline:
    """Load a pipeline, from a joblib file or from the files of ``save_artifacts``."""
    is_joblib = Path(path).is_file() and Path(path).suffix not in SUFFIXES
    must = "a file of joblib.dump" if is_joblib else "files of save_artifacts"
    if not any(Path(f"{path}{suffix}").exists() for suffix in ("", *SUFFIXES)) and (
        not path.startswith("hf://")
    ):
        raise SystemExit(
            f"{path} cannot be served: there is no such file, nor {path}.json and "
            f"{path}.safetensors, as save_artifacts writes them."
        )
    try:
        probe = joblib.load(path) if is_joblib else load_artifacts(path, device)
    except Exception as error:  # joblib may raise any error on a bad pickle
        raise SystemExit(
            f"{path} cannot be served: it could not be read as {must}. "
            f"{type(error).__name__}: {error}"
        ) from error
    # A fitted search contains the pipeline that it chose.
    probe = getattr(probe, "best_estimator_", probe)
    if not isinstance(probe, Pipeline) or not hasattr(probe, "classes_"):
        raise SystemExit(
            f"{path} must hold a fitted pipeline from texts to probabilities. "
            f"Got {type(probe).__name__} instead."
        )
    if not hasattr(probe, "predict_proba"):
        raise SystemExit(
            f"{path} must hold a pipeline whose last step gives probabilities. "
            f"Got {type(probe[-1]).__name__} instead, which has no predict_proba."
        )
    return probe


def make_compute(probe: Pipeline) -> Callable[[list[str]], list[tuple[Any, Any]]]:
    """Make a function that returns the label and probabilities of each text."""
    reader, classifier = probe[:-1], probe[-1]

    def compute(texts: list[str]) -> list[tuple[Any, Any]]:
        # The texts go through the language model once for both.
        features = reader.transform(texts)
        labels = classifier.predict(features).tolist()
        probabilities = classifier.predict_proba(features).tolist()
        return list(zip(labels, probabilities, strict=True))

    return compute


def make_write(probe: Pipeline) -> Write:
    """Make a function that yields the tokens of answers that are written together."""

    def write(answers: Sequence[Answer]) -> Iterator[tuple[int, dict[str, Any]]]:
        options = dict(answers[0].options)
        seed = options.pop("seed", None)
        tokens = stream_with_probes(
            [answer.prompt for answer in answers],
            probe,
            max_new_tokens=max(answer.max_new_tokens for answer in answers),
            stop=[answer.should_end for answer in answers],
            generation_kwargs={"do_sample": bool(options), **options},
            random_state=seed,
            batch_size=len(answers),
        )
        for token in tokens:
            item = {
                "token": token.token,
                "probabilities": token.probabilities["probe"].tolist(),
                "stopped_by": token.stopped_by,
            }
            yield token.prompt, item

    return write


def show(said: object) -> str:
    """Format an error as a short message that any client can read."""
    text = str(said).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MOST_SAID else f"{text[:MOST_SAID]}…"


async def explain_request(request: Request, error: Exception) -> JSONResponse:
    """Explain an invalid request without quoting it, since it may hold anything."""
    assert isinstance(error, RequestValidationError)
    kind = request.headers.get("content-type")
    if not is_json(kind):
        got = "none" if kind is None else show(repr(kind))
        said = f"The header Content-Type must be application/json. Got {got} instead."
        return JSONResponse({"detail": said}, 415)
    found = [f"{show(e['loc'])}: {show(e['msg'])}" for e in error.errors()[:5]]
    return JSONResponse({"detail": "; ".join(found)}, 422)


def is_json(content_type: str | None) -> bool:
    """Tell whether a body of this type is read as JSON."""
    kind = (content_type or "").split(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


@contextmanager
def explain_errors(what: str) -> Iterator[None]:
    """Answer with an error if the server is overloaded or closing, or refuses texts."""
    try:
        yield
    except (Full, Closed) as error:
        said = f"Too many {what}" if isinstance(error, Full) else "Shutting down"
        detail, headers = f"{said}; ask again.", {"Retry-After": "1"}
        raise HTTPException(503, detail, headers) from error
    except (TypeError, ValueError, FloatingPointError) as error:
        # Texts that the embedder cannot read, such as a text without tokens, or for
        # which the states of the model overflow.
        raise HTTPException(422, show(error)) from error


class EventStream(StreamingResponse):
    """Server-sent events, with a time limit for clients that read slowly.

    The connection is closed if a client does not read for longer than an answer may
    take.
    """

    def __init__(self, streams: AnswerStreams, answer: Answer) -> None:
        headers = {"Cache-Control": "no-store"}
        events = answer.events(streams.seconds)
        super().__init__(events, 200, headers, "text/event-stream")
        self.streams = streams
        self.answer = answer

    async def __call__(self, *given: Any) -> None:  # noqa: ANN401 - scope, receive, send
        """Send the events, and end the answer whatever happens."""
        try:
            async with asyncio.timeout(self.streams.seconds + 1):
                await super().__call__(*given)
        except TimeoutError:
            pass
        finally:
            self.streams.end(self.answer)


def make_app(
    compute: Callable[[list[str]], Sequence[tuple[Any, Any]]],
    classes: list[Any],
    limits: Limits,
    write: Write | None = None,
) -> FastAPI:
    """Make the application.

    Parameters
    ----------
    compute : callable
        Takes texts, and returns the label and probabilities of each.
    classes : list
        The classes that the columns of the probabilities stand for.
    limits : Limits
        Limits of requests.
    write : callable, default=None
        Takes answers with equal sampling options, and yields pairs of the position of
        an answer and its next token. None: ``/generate`` is not served.
    """
    wait = limits.wait_ms / 1000
    streams = AnswerStreams(
        write,
        most=limits.answers,
        together=limits.batch_answers,
        wait=wait,
        seconds=limits.answer_seconds,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Load the model before the first request comes.
        await asyncio.to_thread(compute, ["A text."])
        async with MicroBatcher(
            compute,
            most_texts=limits.batch_texts,
            wait=wait,
            most_waiting=limits.waiting_texts,
        ) as batcher:
            app.state.batcher, app.state.streams = batcher, streams
            yield
            streams.close()

    text = Annotated[str, Field(max_length=limits.characters)]

    class Question(BaseModel):
        model_config = ConfigDict(strict=True, extra="forbid")
        texts: Annotated[list[text], Field(min_length=1, max_length=limits.texts)]

    class Prompt(BaseModel):
        model_config = ConfigDict(strict=True, extra="forbid")
        prompt: text
        max_new_tokens: Annotated[int, Field(ge=1, le=limits.answer_tokens)] = 64
        stop: Annotated[float, Field(ge=0, le=1)] | None = None
        # A lower temperature makes logits overflow.
        temperature: Annotated[float, Field(ge=0.01, le=10)] | None = None
        top_p: Annotated[float, Field(gt=0, le=1)] | None = None
        seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None

    app = FastAPI(
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        exception_handlers={RequestValidationError: explain_request},
    )
    app.add_middleware(LimitBody, limits=limits)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/predict")
    async def predict(question: Question) -> dict[str, Any]:
        with explain_errors("texts wait"):
            answers = await app.state.batcher.submit(question.texts)
        predictions, probabilities = zip(*answers, strict=True)
        return {
            "classes": classes,
            "predictions": predictions,
            "probabilities": probabilities,
        }

    @app.post("/generate")
    async def generate(asked: Prompt) -> StreamingResponse:
        if write is None:
            raise HTTPException(404, "This server does not generate text.")
        options = asked.model_dump(exclude_none=True)
        names = ("prompt", "max_new_tokens", "stop")
        given = [options.pop(name, None) for name in names]
        with explain_errors("answers are written"):
            answer = await streams.open(*given, options)
        return EventStream(streams, answer)

    return app


def read_limit(kind: type[Any]) -> Callable[[str], Any]:
    """Make the function that reads a limit, which is a number that is not negative."""

    def read(written: str) -> Any:  # noqa: ANN401 - an int or a float
        value = kind(written)
        if not 0 <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be 0 or more, got {written}")
        return value

    read.__name__ = kind.__name__
    return read


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until stopped; requests that were accepted before are still answered."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("probe", help="joblib file, or path given to save_artifacts")
    parser.add_argument("--device", default="cpu", help="for what load_artifacts loads")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    for name, default in vars(Limits()).items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=read_limit(type(default)), default=default)
    options = vars(parser.parse_args(arguments))
    host, port = options.pop("host"), options.pop("port")
    probe = load_probe(options.pop("probe"), options.pop("device"))
    limits, classes = Limits(**options), probe.classes_.tolist()
    app = make_app(make_compute(probe), classes, limits, make_write(probe))
    uvicorn.run(app, host=host, port=port, log_level="warning", limit_concurrency=512)


if __name__ == "__main__":
    main()
