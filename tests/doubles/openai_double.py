"""OpenAI's service, or anything else that speaks its contract."""

import base64

from .base import vector
from .openai_wire import OpenAIWire
from .pictures import png

KINDS = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "invalid_request_error",
    404: "invalid_request_error",
    429: "requests",
    500: "server_error",
    503: "server_error",
}
CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


class OpenAIDouble(OpenAIWire):
    kind = "openai"
    fingerprint = "fp_44709d6fcb"
    extra_traps = {"quota": "429 that no waiting clears", "obfuscation": "chunks carry padding"}

    def __init__(self, models=("gpt-4o-mini",), context=128_000, **rest):
        super().__init__(models=models, **rest)
        self.context = context

    def routes(self, router):
        self.wire_routes(router)
        router.add_post("/v1/images/generations", self.work(self.images))

    def error(self, status, message, code=None, param=None, **_):
        return self.json(
            {
                "error": {
                    "message": message,
                    "type": KINDS.get(status, "server_error"),
                    "param": param,
                    "code": code or CODES.get(status),
                }
            },
            status,
            self.response_headers(),
        )

    def response_headers(self):
        return {"x-request-id": f"req_{len(self.requests):032x}", "openai-processing-ms": "12"}

    def wrong_key(self):
        return (
            "Incorrect API key provided: no. You can find your API key at https://platform.openai.com/account/api-keys."
        )

    def no_route(self, request, error):
        if error.status not in (404, 405):
            return None
        return self.error(error.status, f"Invalid URL ({request.method} {request.path})")

    def too_long(self, prompt):
        if self.trap("quota"):
            return self.json(
                {
                    "error": {
                        "message": "You exceeded your current quota, please check your plan and billing details.",
                        "type": "insufficient_quota",
                        "param": None,
                        "code": "insufficient_quota",
                    }
                },
                429,
            )
        if prompt <= self.context:
            return None
        return self.error(
            400,
            f"This model's maximum context length is {self.context} tokens. However, your messages resulted in "
            f"{prompt} tokens. Please reduce the length of the messages.",
            code="context_length_exceeded",
            param="messages",
        )

    def loading(self, progress):
        """How servers behind this contract say that a model is on its way."""
        return self.json(
            {
                "error": {
                    "message": f"model is loading ({float(progress):.0%})",
                    "type": "model_loading",
                    "param": None,
                    "code": "model_loading",
                },
                "loading": {"state": "loading", "progress": float(progress), "eta_seconds": 2},
            },
            503,
            {"Retry-After": "1"},
        )

    async def streamed(self, request, body, tokens, shape):
        if self.trap("obfuscation"):
            plain = shape.piece
            shape.piece = lambda index, piece: {**plain(index, piece), "obfuscation": "x" * (7 + index % 5)}
        return await super().streamed(request, body, tokens, shape)

    async def images(self, request):
        body, refused = await self.checked(request, ["prompt"])
        if refused:
            return refused
        wide, high = (int(n) for n in body.get("size", "64x64").split("x"))
        made = [
            png(min(wide, 64), min(high, 64), int(abs(vector([body["prompt"], i])[0]) * 255))
            for i in range(body.get("n", 1))
        ]
        return self.json(
            {
                "created": 1713833628,
                "data": [{"b64_json": base64.b64encode(p).decode()} for p in made],
                "usage": {"input_tokens": 5, "output_tokens": 100, "total_tokens": 105},
            },
            headers=self.response_headers(),
        )
