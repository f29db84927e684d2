"""Ollama: its own API, and the OpenAI contract in its accent."""

import asyncio
import hashlib
import json

from . import base
from .base import SEEN, Broken, Ended, Stream, compact
from .openai_wire import OpenAIWire, data, stopped

MS = 1_000_000
EVAL_NS = 20 * MS  # of each token
PROMPT_NS = 2 * MS
LOAD_NS = 150 * MS
LAYERS = [("sha256:6a0746a1ec1a", 4_000_000), ("sha256:4fa551d4f938", 12_000)]


def tagged(name):
    return name if ":" in name else name + ":latest"


class OllamaDouble(OpenAIWire):
    kind = "ollama"
    fingerprint = "fp_ollama"
    null_usage = False
    extra_traps = {
        "no_tools": "the model cannot call tools",
        "pull_error_after": "an error after so many lines of a pull",
        "pull_s": "time between the lines of a pull",
    }

    def __init__(self, models=("llama3.2:1b",), context=4096, loaded=(), pullable=(), sizes=None, **rest):
        super().__init__(models=[tagged(m) for m in models], **rest)
        self.context = context
        self.loaded = [tagged(m) for m in loaded]
        self.pullable = [tagged(m) for m in pullable]
        self.sizes = sizes or {}
        self.clock = 0

    def routes(self, router):
        self.wire_routes(router)
        router.add_get("/", self.root)
        router.add_get("/api/version", self.version)
        router.add_get("/api/tags", self.tags)
        router.add_get("/api/ps", self.ps)
        router.add_post("/api/show", self.show)
        router.add_post("/api/pull", self.pull)
        router.add_delete("/api/delete", self.delete)
        router.add_post("/api/generate", self.work(self.generate))
        router.add_post("/api/chat", self.work(self.chat))
        router.add_post("/api/embed", self.work(self.embed))
        router.add_post("/api/embeddings", self.work(self.embed_old))

    # ---- accents of the OpenAI side

    def find(self, model):
        return tagged(model) in self.models

    def error(self, status, message, **_):
        if self.openai_side():
            kind = {400: "invalid_request_error", 404: "not_found_error"}.get(status, "api_error")
            return self.json({"error": {"message": message, "type": kind, "param": None, "code": None}}, status)
        return self.json({"error": message}, status)

    def openai_side(self):
        return any(not r.ended and r.path.startswith("/v1/") and r is self.current() for r in self.requests[-64:])

    def current(self):
        return self._seen_by_task.get(asyncio.current_task())

    async def allowed(self, request):
        self._seen_by_task[asyncio.current_task()] = request[SEEN]
        return

    async def begin(self):
        self._seen_by_task = {}

    def no_model(self, model):
        return self.error(404, f"model '{model}' not found")

    def says(self, status):
        if status == 503:
            return "server busy, please try again.  maximum pending requests exceeded"
        return super().says(status)

    def model_card(self, model):
        return {"id": model, "object": "model", "created": 1686935002, "owned_by": "library"}

    def stream_error(self, message):
        return data({"error": {"message": message, "type": "api_error", "param": None, "code": None}})

    # ---- its own routes

    def details(self, model):
        return {
            "parent_model": "",
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "1.2B",
            "quantization_level": "Q4_K_M",
        }

    def digest(self, model):
        return hashlib.sha256(model.encode()).hexdigest()

    def size(self, model):
        return self.sizes.get(model, 770_000_000)

    async def root(self, _):
        answer = self.json({})
        answer.body, answer.content_type = b"Ollama is running", "text/plain"
        return answer

    async def version(self, _):
        return self.json({"version": "0.12.6"})

    async def tags(self, _):
        return self.json(
            {
                "models": [
                    {
                        "name": m,
                        "model": m,
                        "modified_at": "2025-05-04T17:37:44.706015396-07:00",
                        "size": self.size(m),
                        "digest": self.digest(m),
                        "details": self.details(m),
                    }
                    for m in self.models
                ]
            }
        )

    async def ps(self, _):
        return self.json(
            {
                "models": [
                    {
                        "name": m,
                        "model": m,
                        "size": self.size(m),
                        "digest": self.digest(m),
                        "details": self.details(m),
                        "expires_at": "2036-06-04T14:38:31.83753-07:00",
                        "size_vram": 0,
                        "context_length": self.context,
                    }
                    for m in self.loaded
                ]
            }
        )

    async def show(self, request):
        body = json.loads(request[SEEN].body)
        model = tagged(body.get("model") or body.get("name") or "")
        if model not in self.models:
            return self.error(404, f"model '{body.get('model')}' not found")
        return self.json(
            {
                "modelfile": f"FROM {model}\n",
                "parameters": 'stop "<|eot_id|>"',
                "template": "{{ .Prompt }}",
                "details": self.details(model),
                "model_info": {
                    "general.architecture": "llama",
                    "general.file_type": 15,
                    "general.parameter_count": 1235814432,
                    "llama.attention.head_count": 32,
                    "llama.attention.head_count_kv": 8,
                    "llama.attention.key_length": 64,
                    "llama.attention.value_length": 64,
                    "llama.block_count": 16,
                    "llama.context_length": 131072,
                    "llama.embedding_length": 2048,
                    "llama.feed_forward_length": 8192,
                    "llama.vocab_size": 128256,
                    "tokenizer.ggml.tokens": [],
                },
                "capabilities": ["completion", "tools"],
                "modified_at": "2025-05-04T17:37:44.706015396-07:00",
            }
        )

    async def delete(self, request):
        body = json.loads(request[SEEN].body)
        model = tagged(body.get("model") or body.get("name") or "")
        if model not in self.models:
            return self.error(404, f"model '{body.get('model')}' not found")
        self.models.remove(model)
        answer = self.json({})
        answer.body = b""
        return answer

    async def pull(self, request):
        body = json.loads(request[SEEN].body)
        model = tagged(body.get("model") or body.get("name") or "")
        lines = [{"status": "pulling manifest"}]
        if model in self.models or model in self.pullable:
            for digest, total in LAYERS:
                begun = {"status": f"pulling {digest[7:]}", "digest": digest, "total": total}
                lines += [begun] + [{**begun, "completed": total * i // 3} for i in (1, 2, 3)]
            lines += [
                {"status": s}
                for s in ("verifying sha256 digest", "writing manifest", "removing unused layers", "success")
            ]
        else:
            lines.append({"error": "pull model manifest: file does not exist"})
        broken = self.trap("pull_error_after")
        if body.get("stream") is False:
            if "error" in lines[-1] or broken is not None:
                return self.error(500, lines[-1].get("error", "unexpected EOF"))
            self._add(model)
            return self.json({"status": "success"})
        stream = await Stream(self, request, "application/x-ndjson").open()
        for index, line in enumerate(lines):
            if index == broken:
                await stream.send(compact({"error": "max retries exceeded: unexpected EOF"}) + b"\n")
                return await stream.end()
            if line.get("status") == "success":
                self._add(model)
            await stream.send(compact(line) + b"\n")
            await asyncio.sleep(self.trap("pull_s") or 0)
        return await stream.end()

    def _add(self, model):
        if model not in self.models:
            self.models.append(model)

    def _now(self):
        self.clock += 1
        return f"2026-01-05T10:{self.clock // 60 % 60:02d}:{self.clock % 60:02d}.{self.clock % 1000:03d}456789Z"

    def metrics(self, prompt, generated, load_ns):
        """Like Go's omitempty: a zero is not there."""
        if self.trap("omit_metrics"):
            return {}
        read = 0 if self.trap("cached_prompt") else prompt
        figures = {
            "load_duration": load_ns,
            "prompt_eval_count": read,
            "prompt_eval_duration": read * PROMPT_NS,
            "eval_count": generated,
            "eval_duration": generated * EVAL_NS,
        }
        total = load_ns + read * PROMPT_NS + generated * EVAL_NS + 3 * MS
        return {k: v for k, v in {"total_duration": total, **figures}.items() if v}

    async def own(self, request):
        """The body, its model, and what loading it took; or an answer that refuses."""
        raw = request[SEEN].body
        if not raw:
            return None, None, 0, self.error(400, "missing request body")
        try:
            body = json.loads(raw)
        except ValueError as error:
            return None, None, 0, self.error(400, f"invalid character in request body: {error}")
        model = tagged(body.get("model", ""))
        if model not in self.models:
            return None, None, 0, self.error(404, f"model '{body.get('model', '')}' not found")
        load_ns = 1 * MS
        if model not in self.loaded:
            self.loaded.append(model)
            load_ns = LOAD_NS
        return body, model, load_ns, None

    async def generate(self, request):
        body, model, load_ns, refused = await self.own(request)
        if refused:
            return refused
        if not body.get("prompt"):
            unload = body.get("keep_alive") in (0, "0", "0s")
            if unload:
                self.loaded.remove(model)
            return self.json(
                {
                    "model": body["model"],
                    "created_at": self._now(),
                    "response": "",
                    "done": True,
                    "done_reason": "unload" if unload else "load",
                }
            )
        return await self.say(
            request, body, load_ns, base.count(body["prompt"]), lambda said: {"response": said}, {"context": [1, 2, 3]}
        )

    async def chat(self, request):
        body, _, load_ns, refused = await self.own(request)
        if refused:
            return refused
        messages = body.get("messages") or []
        if body.get("tools") and self.trap("no_tools"):
            return self.error(400, f"{body['model']} does not support tools")

        def shape(said):
            return {"message": {"role": "assistant", "content": said}}

        if body.get("tools") and messages and messages[-1].get("role") != "tool":
            tool = body["tools"][0]
            call = {"function": {"name": tool["function"]["name"], "arguments": base.arguments_of(tool)}}
            return await self.say(
                request,
                body,
                load_ns,
                base.count(messages),
                lambda said: {
                    "message": {"role": "assistant", "content": "", **({"tool_calls": [call]} if said else {})}
                },
                {},
                ["call"],
            )
        return await self.say(request, body, load_ns, base.count(messages), shape, {})

    async def say(self, request, body, load_ns, prompt, shape, more, tokens=None):
        options = body.get("options") or {}
        wanted, reason = self.plan(options.get("num_predict"))
        if tokens is None:
            tokens = [base.token(i) for i in range(wanted)]
            if form := body.get("format"):
                said = json.dumps(base.example(form if isinstance(form, dict) else {}))
                tokens, reason = [said[i : i + 4] for i in range(0, len(said), 4)], "stop"
            stop = options.get("stop") or []
            tokens, cut = stopped(tokens, [stop] if isinstance(stop, str) else stop)
            reason = "stop" if cut else reason
        else:
            reason = "stop"
        context = options.get("num_ctx") or self.context
        if prompt > context and body.get("truncate") is False:
            return self.error(400, "the input length exceeds the context length")

        def line(said, **rest):
            return {"model": body["model"], "created_at": self._now(), **shape(said), "done": bool(rest), **rest}

        stream, said = None, []
        try:
            if self.trap("early_head"):
                stream = await Stream(self, request, "application/x-ndjson").open()
            async for _, piece in self.paced(request, tokens):
                said.append(piece)
                if body.get("stream") is not False:
                    stream = stream or await Stream(self, request, "application/x-ndjson").open()
                    await stream.send(compact(line(piece)) + b"\n")
        except Broken as broken:
            if stream is None:
                return self.error(500, str(broken))
            await stream.send(compact({"error": str(broken)}) + b"\n")
            return await stream.end()
        except Ended:
            return await stream.end() if stream else self.error(500, "EOF")
        if stream is None and body.get("stream") is not False:
            stream = await Stream(self, request, "application/x-ndjson").open()
        last = line(
            "" if stream else "".join(said),
            done_reason=reason,
            **more,
            **self.metrics(min(prompt, context), len(said), load_ns),
        )
        if stream is None:
            return self.json(last)
        await stream.send(compact(last) + b"\n")
        return await stream.end()

    async def embed(self, request):
        body, _, load_ns, refused = await self.own(request)
        if refused:
            return refused
        inputs = body.get("input", [])
        inputs = inputs if isinstance(inputs, list) else [inputs]
        vectors = [base.vector(i, body.get("dimensions") or 8) for i in inputs]
        return self.json(
            {
                "model": body["model"],
                "embeddings": vectors,
                "total_duration": load_ns + 5 * MS,
                "load_duration": load_ns,
                "prompt_eval_count": base.count(inputs),
            }
        )

    async def embed_old(self, request):
        body, _, _, refused = await self.own(request)
        return refused or self.json({"embedding": base.vector(body.get("prompt", ""))})
