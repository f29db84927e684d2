"""Replicate: predictions that start, run and end, their streams and their signed webhooks."""

import asyncio
import base64
import hashlib
import hmac
import json
import time

import aiohttp
from aiohttp import web

from . import base
from .base import SEEN, Broken, Ended, Stream, compact

SECRET = "whsec_" + base64.b64encode(b"a secret for tests only").decode()
OFFICIAL = "meta/meta-llama-3-8b-instruct"
VERSION = "39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b"
ENDED = ("succeeded", "failed", "canceled")


def signature(secret, identity, timestamp, body):
    key = base64.b64decode(secret.split("_", 1)[1])
    signed = f"{identity}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


class ReplicateDouble(base.Double):
    kind = "replicate"
    extra_traps = {
        "fail": "the prediction fails with this text",
        "start_s": "time in `starting`",
        "no_stream": "no urls.stream",
        "bad_signature": "webhooks are signed with another secret",
        "old_webhook": "webhooks carry the time of an hour ago",
        "webhook_twice": "each webhook comes twice",
        "aborted": "its deadline passed before it started",
        "limit_reads": "429 to so many reads of a prediction, with retry_after",
    }

    def __init__(self, models=(OFFICIAL,), **rest):
        rest.setdefault("api_key", "r8_test")
        super().__init__(models=models, **rest)
        self.predictions, self.tasks = {}, {}
        self.secret = SECRET
        self.webhooks = []

    def routes(self, router):
        router.add_post("/v1/predictions", self.work(self.create))
        router.add_post("/v1/models/{owner}/{name}/predictions", self.work(self.create))
        router.add_post("/v1/deployments/{owner}/{name}/predictions", self.work(self.create))
        router.add_get("/v1/predictions/{id}", self.get)
        router.add_post("/v1/predictions/{id}/cancel", self.cancel)
        router.add_get("/v1/stream/{id}", self.stream)
        router.add_get("/v1/models/{owner}/{name}", self.model)
        router.add_get("/v1/account", self.account)
        router.add_get("/v1/webhooks/default/secret", self.webhook_secret)

    def needs_key(self, request):
        return not request.path.startswith("/v1/stream/")

    def wrong_key(self):
        return "You did not pass a valid authentication token"

    def error(self, status, message, **_):
        titles = {401: "Unauthenticated", 404: "Not found", 422: "Input validation failed", 429: "Too many requests"}
        answer = self.json({"title": titles.get(status, "Error"), "detail": message, "status": status}, status)
        answer.content_type = "application/problem+json"
        return answer

    def no_route(self, request, error):
        return self.error(404, "The requested resource could not be found.") if error.status in (404, 405) else None

    async def account(self, _):
        return self.json({"type": "user", "username": "tests", "name": "Tests", "github_url": "https://github.com"})

    async def webhook_secret(self, _):
        return self.json({"key": self.secret})

    async def model(self, request):
        owner, name = request.match_info["owner"], request.match_info["name"]
        if f"{owner}/{name}" not in self.models:
            return self.error(404, "The requested resource could not be found.")
        return self.json(
            {
                "url": f"https://replicate.com/{owner}/{name}",
                "owner": owner,
                "name": name,
                "description": None,
                "visibility": "public",
                "run_count": 1,
                "cover_image_url": None,
                "default_example": None,
                "latest_version": None,
            }
        )

    async def create(self, request):
        body = json.loads(request[SEEN].body)
        match = request.match_info
        model = f"{match['owner']}/{match['name']}" if "owner" in match else None
        if model and model not in self.models:
            return self.error(404, "The requested resource could not be found.")
        if "input" not in body:
            return self.error(422, "- input: Field required")
        identity = hashlib.sha256(str(len(self.predictions)).encode()).hexdigest()[:26]
        here = f"{self.url}/v1/predictions/{identity}"
        urls = {"cancel": here + "/cancel", "get": here}
        if not self.trap("no_stream"):
            urls["stream"] = f"{self.url}/v1/stream/{identity}"
        prediction = {
            "id": identity,
            "model": model or self.models[0],
            "version": body.get("version", VERSION),
            "input": body["input"],
            "logs": "",
            "output": None,
            "error": None,
            "status": "starting",
            "created_at": stamp(),
            "data_removed": False,
            "urls": urls,
        }
        self.predictions[identity] = prediction
        traps = {**self._always, **self._active.get(asyncio.current_task(), {})}
        task = asyncio.create_task(self.run(prediction, body, traps))
        self.tasks[identity] = task
        headers = {"ratelimit-remaining": "599", "ratelimit-reset": "1"}
        if "wait" in (prefer := request.headers.get("Prefer", "")):
            seconds = min(60.0, float(prefer.partition("=")[2] or 60))
            await asyncio.wait([task], timeout=seconds)
            headers["Preference-Applied"] = prefer
        return self.json(prediction, 201, headers)

    async def run(self, prediction, body, traps):
        began = time.monotonic()
        await asyncio.sleep(traps.get("start_s", 0))
        if traps.get("aborted"):
            prediction.update(status="aborted", completed_at=stamp())
            return
        if prediction["status"] in ENDED:
            return
        prediction.update(status="processing", started_at=stamp(), output=[])
        await self.webhook(body, prediction, traps, "start")
        for index in range(self.tokens):
            await asyncio.sleep(self.delay_s)
            if prediction["status"] in ENDED:
                return
            if traps.get("fail") and index >= min(3, self.tokens - 1):
                prediction.update(status="failed", error=traps["fail"])
                break
            prediction["output"].append(base.token(index))
            done = (index + 1) * 100 // self.tokens
            prediction["logs"] += f"{done:3d}%|{'#' * (done // 10):<10}| {index + 1}/{self.tokens} [00:00<00:00]\n"
        else:
            prediction["status"] = "succeeded"
        prediction["completed_at"] = stamp()
        prediction["metrics"] = {"predict_time": 0.5, "total_time": round(time.monotonic() - began + 0.5, 6)}
        await self.webhook(body, prediction, traps, "completed")
        self.news()

    async def webhook(self, body, prediction, traps, event):
        if not body.get("webhook") or event not in body.get(
            "webhook_events_filter", ["start", "output", "logs", "completed"]
        ):
            return
        payload = compact(prediction)
        identity = f"msg_{len(self.webhooks):024d}"
        when = int(time.time()) - (3600 if traps.get("old_webhook") else 0)
        secret = "whsec_" + base64.b64encode(b"another").decode() if traps.get("bad_signature") else self.secret
        headers = {
            "Content-Type": "application/json",
            "webhook-id": identity,
            "webhook-timestamp": str(when),
            "webhook-signature": "v1,b3RoZXI= " + signature(secret, identity, when, payload),
        }
        async with aiohttp.ClientSession() as session:
            for _ in range(2 if traps.get("webhook_twice") else 1):
                try:
                    async with session.post(body["webhook"], data=payload, headers=headers) as answer:
                        self.webhooks.append((event, answer.status))
                except aiohttp.ClientError:
                    self.webhooks.append((event, 0))

    async def get(self, request):
        prediction = self.predictions.get(request.match_info["id"])
        if prediction is None:
            return self.error(404, "The requested resource could not be found.")
        if left := self._always.get("limit_reads"):
            self._always["limit_reads"] = left - 1
            answer = self.error(429, "Request was throttled.")
            answer.headers["Retry-After"] = base.as_date(self._always.get("retry_after", 1))
            return answer
        return self.json(prediction, headers={"ratelimit-remaining": "2999", "ratelimit-reset": "1"})

    async def cancel(self, request):
        prediction = self.predictions.get(request.match_info["id"])
        if prediction is None:
            return self.error(404, "The requested resource could not be found.")
        if prediction["status"] not in ENDED:
            prediction.update(status="canceled", completed_at=stamp(), metrics={"predict_time": 0.1, "total_time": 0.2})
        return self.json(prediction)

    async def stream(self, request):
        prediction = self.predictions.get(request.match_info["id"])
        if prediction is None:
            return web.Response(status=404)
        stream = await Stream(self, request, "text/event-stream").open()
        given = 0
        try:
            async for index, _ in self.paced(request, range(self.tokens)):
                while len(prediction["output"] or []) <= index and prediction["status"] not in ENDED:
                    await asyncio.sleep(0.002)
                if len(prediction["output"] or []) <= index:
                    break
                said = "".join(f"data: {line}\n" for line in prediction["output"][index].split("\n"))
                await stream.send(f"event: output\nid: 1690212292:{index}\n{said}\n".encode())
                given += 1
        except Broken as broken:
            await stream.send(
                f"event: error\nid: 1690212292:{given}\ndata: {compact({'detail': str(broken)}).decode()}\n\n".encode()
            )
            return await stream.end()
        except Ended:
            return await stream.end()
        if prediction["status"] == "failed":
            detail = compact({"detail": prediction["error"]}).decode()
            await stream.send(f"event: error\nid: 1690212292:{given}\ndata: {detail}\n\n".encode())
        reason = {"canceled": '{"reason":"canceled"}', "failed": '{"reason":"error"}'}.get(prediction["status"], "{}")
        await stream.send(f"event: done\nid: 1690212292:{given}\ndata: {reason}\n\n".encode())
        return await stream.end()


def stamp():
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
