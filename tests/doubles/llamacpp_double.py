"""The HTTP server of llama.cpp, with one model."""

import json

from . import base
from .base import SEEN, Broken, Ended, Stream, compact
from .openai_wire import OpenAIWire, data

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    500: "server_error",
    501: "not_supported_error",
    503: "unavailable_error",
}
PREDICTED_MS = 20.0  # of each token
PROMPT_MS = 2.0


class LlamaCppDouble(OpenAIWire):
    kind = "llamacpp"
    fingerprint = "b6401-c4e9239"
    null_usage = False
    first_content = None
    plain_chat = text_usage_rides = True
    extra_traps = {"embeddings_off": "started without --embeddings", "metrics_off": "started without --metrics"}

    def __init__(self, models=("smollm2-135m",), context=4096, slots=2, **rest):
        super().__init__(models=models, **rest)
        self.context, self.slots_n = context, slots
        self.is_loading = False

    def load(self, loading=True):
        """While it loads its model every route says 503."""
        self.is_loading = loading

    def routes(self, router):
        self.wire_routes(router)
        for path in ("/health", "/v1/health"):
            router.add_get(path, self.health)
        router.add_get("/props", self.props)
        router.add_get("/slots", self.slots)
        router.add_get("/metrics", self.metrics)
        router.add_post("/completion", self.work(self.completion))
        router.add_post("/tokenize", self.tokenize)

    async def allowed(self, request):
        if self.is_loading:
            return self.error(503, "Loading model")
        return await super().allowed(request)

    def needs_key(self, request):
        return request.path not in ("/health", "/v1/health", "/v1/models", "/models")

    def error(self, status, message, kind=None, **more):
        more.pop("code", None)
        more.pop("param", None)
        return self.json(
            {"error": {"code": status, "message": message, "type": kind or KINDS.get(status, "server_error"), **more}},
            status,
        )

    def no_route(self, request, error):
        return self.error(404, "File Not Found") if error.status in (404, 405) else None

    def find(self, model):
        return True  # it has one model and does not look at the name

    def reply_model(self, body):
        return self.models[0]

    def too_long(self, prompt):
        if prompt < self.context:
            return None
        return self.error(
            400,
            f"request ({prompt} tokens) exceeds the available context size ({self.context} tokens), try increasing it",
            "exceed_context_size_error",
            n_prompt_tokens=prompt,
            n_ctx=self.context,
        )

    def stream_error(self, message):
        inner = {"code": 500, "message": message, "type": "server_error"}
        if self.trap("error_form") == "old":
            return b"error: " + compact(inner) + b"\n\n"
        return data({"error": inner})

    def timings(self, prompt, generated):
        cached = prompt - 1 if self.trap("cached_prompt") else 0
        read = prompt - cached
        return {
            "timings": {
                "cache_n": cached,
                "prompt_n": read,
                "prompt_ms": read * PROMPT_MS,
                "prompt_per_token_ms": PROMPT_MS,
                "prompt_per_second": 1000 / PROMPT_MS,
                "predicted_n": generated,
                "predicted_ms": generated * PREDICTED_MS,
                "predicted_per_token_ms": PREDICTED_MS,
                "predicted_per_second": 1000 / PREDICTED_MS,
            }
        }

    def model_card(self, model):
        meta = {
            "vocab_type": 2,
            "n_vocab": 49152,
            "n_ctx_train": 8192,
            "n_embd": 576,
            "n_params": 134515008,
            "size": 98362432,
        }
        return {"id": model, "object": "model", "created": 1735142223, "owned_by": "llamacpp", "meta": meta}

    async def health(self, _):
        return self.json({"status": "ok"})

    async def props(self, _):
        return self.json(
            {
                "default_generation_settings": {"n_ctx": self.context},
                "total_slots": self.slots_n,
                "model_path": f"/models/{self.models[0]}.gguf",
                "chat_template": "",
                "modalities": {"vision": False, "audio": False},
                "build_info": self.fingerprint,
                "is_sleeping": False,
            }
        )

    async def slots(self, request):
        busy = min(self.running, self.slots_n)
        if request.query.get("fail_on_no_slot") and busy == self.slots_n:
            return self.error(503, "no slot available")
        return self.json(
            [
                {"id": i, "n_ctx": self.context, "speculative": False, "is_processing": i < busy}
                for i in range(self.slots_n)
            ]
        )

    async def metrics(self, _):
        if self.trap("metrics_off"):
            return self.error(501, "This server does not support metrics endpoint. Start it with `--metrics`")
        done = sum(r.tokens for r in self.requests)
        name = "llamacpp:tokens_predicted_total"
        lines = f"# HELP {name} Number of generation tokens processed.\n# TYPE {name} counter\n{name} {done}\n"
        lines += f"llamacpp:requests_processing {self.running}\n"
        answer = self.json({})
        answer.body, answer.content_type = lines.encode(), "text/plain"
        return answer

    async def tokenize(self, request):
        words = json.loads(request[SEEN].body).get("content", "").split()
        return self.json({"tokens": list(range(len(words)))})

    async def embeddings(self, request):
        if self.trap("embeddings_off"):
            return self.error(501, "This server does not support embeddings. Start it with `--embeddings`")
        return await super().embeddings(request)

    async def completion(self, request):
        """The native route: no [DONE], and the last frame holds everything."""
        try:
            body = json.loads(request[SEEN].body)
        except ValueError:
            return self.error(400, "[json.exception.parse_error.101] parse error")
        if "prompt" not in body:
            return self.error(400, '"prompt" must be provided')
        prompt = base.count(body["prompt"])
        if answer := self.too_long(prompt):
            return answer
        limit = body.get("n_predict", -1)
        wanted, reason = self.plan(limit if limit >= 0 else None)
        tokens = [base.token(i) for i in range(wanted)]
        said, stream = [], None
        try:
            async for index, piece in self.paced(request, tokens):
                said.append(piece)
                if body.get("stream"):
                    stream = stream or await Stream(self, request, "text/event-stream").open()
                    await stream.send(
                        data(
                            {
                                "index": 0,
                                "content": piece,
                                "tokens": [index],
                                "stop": False,
                                "id_slot": 0,
                                "tokens_predicted": index + 1,
                                "tokens_evaluated": prompt,
                            }
                        )
                    )
        except Broken as broken:
            if stream is None:
                return self.error(500, str(broken))
            await stream.send(self.stream_error(str(broken)))
            return await stream.end()
        except Ended:
            return await stream.end() if stream else self.error(500, "ended")
        last = {
            "index": 0,
            "content": "" if stream else "".join(said),
            "tokens": [],
            "id_slot": 0,
            "stop": True,
            "model": self.models[0],
            "tokens_predicted": len(said),
            "tokens_evaluated": prompt,
            "generation_settings": {},
            "prompt": body["prompt"],
            "has_new_line": False,
            "truncated": False,
            "stop_type": "limit" if reason == "length" else "eos",
            "stopping_word": "",
            "tokens_cached": prompt + len(said),
            **({} if self.trap("omit_metrics") else self.timings(prompt, len(said))),
        }
        if not body.get("stream"):
            return self.json(last)
        stream = stream or await Stream(self, request, "text/event-stream").open()
        await stream.send(data(last))
        return await stream.end()
