"""The OpenAI contract, which three of the services speak, each with its own accent."""

import json
import time

from . import base
from .base import SEEN, Broken, Ended, Stream, compact


def data(value) -> bytes:
    return b"data: " + compact(value) + b"\n\n"


class OpenAIWire(base.Double):
    """Routes under /v1. The accents are methods that a double overrides."""

    fingerprint = None
    has_timings = False
    null_usage = True  # chunks carry "usage":null when usage was asked for
    first_content = ""
    plain_chat = False  # no "logprobs" and "refusal" that are null
    text_usage_rides = False  # of a text completion: on its last chunk, asked for or not

    def wire_routes(self, router):
        router.add_post("/v1/chat/completions", self.work(self.chat_completions))
        router.add_post("/v1/completions", self.work(self.completions))
        router.add_post("/v1/embeddings", self.work(self.embeddings))
        router.add_get("/v1/models", self.v1_models)
        router.add_get("/v1/models/{model:.+}", self.v1_model)

    # ---- accents

    def find(self, model):
        return model in self.models

    def no_model(self, model):
        return self.error(
            404, f"The model `{model}` does not exist or you do not have access to it.", code="model_not_found"
        )

    def reply_model(self, body):
        return body["model"]

    def too_long(self, prompt_tokens):
        """An answer when the prompt is longer than the context."""

    def model_card(self, model):
        return {"id": model, "object": "model", "created": 1686935002, "owned_by": self.kind}

    def reply_id(self, prefix):
        self.replies = getattr(self, "replies", 0) + 1
        return f"{prefix}-{self.replies:029d}"

    def response_headers(self):
        return {}

    def stream_error(self, message):
        return data({"error": {"message": message, "type": "server_error", "param": None, "code": None}})

    def timings(self, prompt, generated):
        return {}

    # ---- routes

    async def v1_models(self, _):
        return self.json({"object": "list", "data": [self.model_card(m) for m in self.models]})

    async def v1_model(self, request):
        model = request.match_info["model"]
        return self.json(self.model_card(model)) if self.find(model) else self.no_model(model)

    async def checked(self, request, need):
        """The body, or an answer that refuses it."""
        try:
            body = json.loads(request[SEEN].body)
        except ValueError:
            return None, self.error(400, "We could not parse the JSON body of your request.")
        for name in need:
            if name not in body:
                return None, self.error(
                    400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
                )
        if not self.find(body.get("model", "")):
            return None, self.no_model(body.get("model", ""))
        return body, None

    async def chat_completions(self, request):
        body, refused = await self.checked(request, ["messages"])
        if refused:
            return refused
        prompt = base.count(body["messages"])
        if answer := self.too_long(prompt):
            return answer
        wanted, reason = self.plan(body.get("max_completion_tokens", body.get("max_tokens")))
        tokens = [base.token(i) for i in range(wanted)]
        form = body.get("response_format") or {}
        if form.get("type") in ("json_object", "json_schema"):
            said = json.dumps(base.example((form.get("json_schema") or {}).get("schema", {})))
            tokens, reason = [said[i : i + 4] for i in range(0, len(said), 4)], "stop"
        call = None
        if body.get("tools") and body["messages"][-1].get("role") != "tool":
            call, reason = body["tools"][0], "tool_calls"
            said = compact(base.arguments_of(call)).decode()
            tokens = [said[i : i + 5] for i in range(0, len(said), 5)]
        if stop := body.get("stop"):
            tokens, cut = stopped(tokens, [stop] if isinstance(stop, str) else stop)
            reason = "stop" if cut else reason
        shape = Chat(self, body, prompt, reason, call)
        return await (self.streamed if body.get("stream") else self.whole)(request, body, tokens, shape)

    async def completions(self, request):
        body, refused = await self.checked(request, ["prompt"])
        if refused:
            return refused
        prompt = base.count(body["prompt"])
        if answer := self.too_long(prompt):
            return answer
        wanted, reason = self.plan(body.get("max_tokens"))
        shape = Text(self, body, prompt, reason)
        tokens = [base.token(i) for i in range(wanted)]
        return await (self.streamed if body.get("stream") else self.whole)(request, body, tokens, shape)

    async def whole(self, request, body, tokens, shape):
        said = []
        try:
            async for _, piece in self.paced(request, tokens):
                said.append(piece)
        except Broken as broken:
            return self.error(500, str(broken))
        except Ended:
            pass
        return self.json(shape.whole(said), headers=self.response_headers())

    async def streamed(self, request, body, tokens, shape):
        usage = (body.get("stream_options") or {}).get("include_usage", False)
        pings = self.trap("pings") or 0
        stream = Stream(
            self, request, "text/event-stream; charset=utf-8", {"Cache-Control": "no-cache", **self.response_headers()}
        )
        is_open = False

        async def opened():
            nonlocal is_open
            if not is_open:
                is_open = True
                await stream.open()
                for _ in range(pings):
                    await stream.send(b": ping\n\n")
                if first := shape.first():
                    await stream.send(data(first))

        try:
            if self.trap("early_head") or pings:
                await opened()
            async for index, piece in self.paced(request, tokens):
                await opened()
                await stream.send(data(shape.piece(index, piece)))
                if pings:
                    await stream.send(b": ping\n\n")
        except Broken as broken:
            if not is_open:
                return self.error(500, str(broken))
            await stream.send(self.stream_error(str(broken)))
            return await stream.end()
        except Ended:
            await opened()
            return await stream.end()
        await opened()
        for frame in shape.last(len(tokens), usage):
            await stream.send(data(frame))
        await stream.send(b"data: [DONE]\n\n")
        return await stream.end()

    async def embeddings(self, request):
        body, refused = await self.checked(request, ["input"])
        if refused:
            return refused
        inputs = body["input"]
        if not isinstance(inputs, list) or (inputs and isinstance(inputs[0], int)):
            inputs = [inputs]
        as_text = body.get("encoding_format", "float") == "base64" and not self.trap("floats_only")
        size = body.get("dimensions", 8)
        vectors = [base.vector(i, size) for i in inputs]
        used = base.count([str(i) for i in inputs])
        return self.json(
            {
                "object": "list",
                "data": [
                    {"object": "embedding", "index": i, "embedding": base.packed(v) if as_text else v}
                    for i, v in enumerate(vectors)
                ],
                "model": self.reply_model(body),
                "usage": {"prompt_tokens": used, "total_tokens": used},
            },
            headers=self.response_headers(),
        )


def stopped(tokens, stops):
    """The tokens before the first of the stop texts, and whether there was one."""
    said = ""
    for index, piece in enumerate(tokens):
        said += piece
        if any(s in said for s in stops):
            return tokens[:index], True
    return tokens, False


class Reply:
    prefix, kind, chunk_kind = "", "", ""

    def __init__(self, wire, body, prompt, reason):
        self.wire, self.body, self.prompt, self.reason = wire, body, prompt, reason
        self.id, self.created = wire.reply_id(self.prefix), int(time.time())
        self.usage_asked = (body.get("stream_options") or {}).get("include_usage", False)

    def usage(self, generated):
        cached = self.prompt if self.wire.trap("cached_prompt") else 0
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": generated,
            "total_tokens": self.prompt + generated,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def frame(self, choices, kind=None, **more):
        out = {
            "id": self.id,
            "object": kind or self.chunk_kind,
            "created": self.created,
            "model": self.wire.reply_model(self.body),
        }
        out["system_fingerprint"] = self.wire.fingerprint
        out["choices"] = choices
        if self.usage_asked and self.wire.null_usage and "usage" not in more and kind is None:
            out["usage"] = None
        return {**out, **more}

    def closing(self, choice, generated, usage):
        figures = {} if self.wire.trap("omit_metrics") else self.wire.timings(self.prompt, generated)
        if usage and not self.wire.trap("omit_metrics"):
            return [self.frame([choice]), self.frame([], usage=self.usage(generated), **figures)]
        return [self.frame([choice], **figures)]


class Chat(Reply):
    prefix, kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, wire, body, prompt, reason, call=None):
        super().__init__(wire, body, prompt, reason)
        self.call = call

    def choice(self, delta, reason=None):
        nulls = {} if self.wire.plain_chat else {"logprobs": None}
        return {"index": 0, "delta": delta, **nulls, "finish_reason": reason}

    def first(self):
        return self.frame(
            [self.choice({"role": "assistant", "content": None if self.call else self.wire.first_content})]
        )

    def piece(self, index, piece):
        if not self.call:
            return self.frame([self.choice({"content": piece})])
        call = {"index": 0, "function": {"arguments": piece}}
        if index == 0:
            call = {
                "index": 0,
                "id": "call_1",
                "type": "function",
                "function": {"name": self.call["function"]["name"], "arguments": piece},
            }
        return self.frame([self.choice({"tool_calls": [call]})])

    def last(self, generated, usage):
        return self.closing(self.choice({}, self.reason), generated, usage)

    def whole(self, said):
        nulls = {} if self.wire.plain_chat else {"refusal": None}
        message = {"role": "assistant", "content": "".join(said), **nulls}
        if self.call:
            function = {"name": self.call["function"]["name"], "arguments": "".join(said)}
            message = {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
            }
        nulls = {} if self.wire.plain_chat else {"logprobs": None}
        choice = {"index": 0, "message": message, **nulls, "finish_reason": self.reason}
        figures = {} if self.wire.trap("omit_metrics") else self.wire.timings(self.prompt, len(said))
        return self.frame([choice], self.kind, usage=self.usage(len(said)), **figures)


class Text(Reply):
    prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def choice(self, piece, reason=None):
        return {"index": 0, "text": piece, "logprobs": None, "finish_reason": reason}

    def first(self):
        return None

    def piece(self, index, piece):
        return self.frame([self.choice(piece)])

    def last(self, generated, usage):
        if self.wire.text_usage_rides and not self.wire.trap("omit_metrics"):
            figures = self.wire.timings(self.prompt, generated)
            return [self.frame([self.choice("", self.reason)], usage=self.usage(generated), **figures)]
        return self.closing(self.choice("", self.reason), generated, usage)

    def whole(self, said):
        return self.frame([self.choice("".join(said), self.reason)], self.kind, usage=self.usage(len(said)))
