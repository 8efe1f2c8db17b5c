"""Serve a model with the code of `transformers serve`; started by tests as a process: MODEL PORT.

Where fastapi is not installed, Starlette, on which it stands, takes its place for the one route that is needed.
"""

import importlib.util
import sys
from types import ModuleType


def _put_starlette_in_the_place_of_fastapi() -> None:
    from starlette import applications, exceptions, requests, responses
    from starlette.middleware import cors

    fastapi = _module("fastapi")
    fastapi.FastAPI = applications.Starlette  # type: ignore[attr-defined]
    fastapi.HTTPException = exceptions.HTTPException  # type: ignore[attr-defined]
    fastapi.Request = requests.Request  # type: ignore[attr-defined]
    _module("fastapi.middleware")
    sys.modules["fastapi.middleware.cors"] = cors
    sys.modules["fastapi.responses"] = responses


def _module(name: str) -> ModuleType:
    made = ModuleType(name)
    made.__spec__ = importlib.util.spec_from_loader(name, loader=None)
    sys.modules[name] = made
    return made


def _application(model: str):
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
    from transformers.cli.serving.chat_completion import ChatCompletionHandler
    from transformers.cli.serving.model_manager import ModelManager
    from transformers.cli.serving.utils import GenerationState

    handler = ChatCompletionHandler(
        model_manager=ModelManager(
            device="cpu",
            dtype="auto",
            trust_remote_code=False,
            attn_implementation=None,
            continuous_batching=False,
            quantization=None,
            model_timeout=300,
            force_model=model,
        ),
        generation_state=GenerationState(continuous_batching=False, compile=False, cb_config=None),
        chat_template_kwargs={},
    )

    async def completions(request: Request) -> Response:
        return await handler.handle_request(await request.json(), "a request")

    async def refusal(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"detail": error.detail}, error.status_code)

    route = Route("/v1/chat/completions", completions, methods=["POST"])
    return Starlette(routes=[route], exception_handlers={HTTPException: refusal})


if __name__ == "__main__":
    if importlib.util.find_spec("fastapi") is None:
        _put_starlette_in_the_place_of_fastapi()
    import uvicorn

    uvicorn.run(_application(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
