"""RunPod's serverless endpoints."""

import asyncio
import hashlib
import json

from . import base
from .base import SEEN

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


class RunPodDouble(base.Double):
    kind = "runpod"
    extra_traps = {
        "fail": "the handler raises this",
        "graceful": "the handler returns {'error': this}",
        "queue_s": "time in IN_QUEUE",
        "stream_form": "'object' for {'status', 'stream': […]}; else the list of the documents",
        "forget": "404 for a job that has ended, as after its ttl",
        "limit_reads": "429 to so many reads of a status, with retry_after",
    }

    def __init__(self, models=("endpoint1",), **rest):
        rest.setdefault("api_key", "rp_test")
        super().__init__(models=models, **rest)
        self.jobs, self.tasks = {}, {}

    def routes(self, router):
        at = "/v2/{endpoint}"
        router.add_post(at + "/run", self.work(self.run))
        router.add_post(at + "/runsync", self.work(self.run))
        router.add_get(at + "/status/{id}", self.status)
        router.add_get(at + "/stream/{id}", self.stream)
        router.add_post(at + "/cancel/{id}", self.cancel)
        router.add_post(at + "/retry/{id}", self.retry)
        router.add_post(at + "/purge-queue", self.purge)
        router.add_get(at + "/health", self.health)

    async def allowed(self, request):
        if request.headers.get("Authorization", "") not in (self.api_key, f"Bearer {self.api_key}"):
            return self.error(401, "unauthorized")
        if request.match_info.get("endpoint", self.models[0]) not in self.models:
            return self.error(404, "endpoint not found")
        return None

    def public(self, job):
        shown = {"id": job["id"], "status": job["status"]}
        if job["status"] in ENDED:
            shown = {"delayTime": 824, "executionTime": 3391, **shown, "workerId": "w1"}
        for name in ("output", "error"):
            if job[name] is not None and (name == "error" or job["status"] in ENDED):
                shown[name] = job[name]
        return shown

    async def run(self, request):
        try:
            body = json.loads(request[SEEN].body)
        except ValueError:
            return self.error(400, "invalid json")
        if "input" not in body:
            return self.error(400, "input is required")
        sync = request.path.endswith("/runsync")
        digest = hashlib.sha256(str(len(self.jobs)).encode()).hexdigest()
        job = {
            "id": ("sync-" if sync else "") + f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}",
            "status": "IN_QUEUE",
            "output": None,
            "error": None,
            "given": 0,
            "input": body["input"],
            "pieces": [],
        }
        self.jobs[job["id"]] = job
        traps = {**self._always, **self._active.get(asyncio.current_task(), {})}
        task = self.tasks[job["id"]] = asyncio.create_task(self.work_on(job, traps))
        if sync:
            await asyncio.wait([task], timeout=float(request.query.get("wait", 90_000)) / 1000)
        return self.json(self.public(job))

    async def work_on(self, job, traps):
        await asyncio.sleep(traps.get("queue_s", 0))
        if job["status"] in ENDED:
            return
        job["status"] = "IN_PROGRESS"
        for index in range(self.tokens):
            await asyncio.sleep(self.delay_s)
            if job["status"] in ENDED:
                return
            job["pieces"].append(base.token(index))
        if traps.get("fail"):
            job.update(status="FAILED", error=traps["fail"])
        elif traps.get("graceful"):
            job.update(status="FAILED", error=traps["graceful"])
        else:
            job.update(status="COMPLETED", output=list(job["pieces"]))
        self.news()

    def find(self, request):
        job = self.jobs.get(request.match_info["id"])
        return None if job is None or (self.trap("forget") and job["status"] in ENDED) else job

    async def status(self, request):
        if left := self._always.get("limit_reads"):
            self._always["limit_reads"] = left - 1
            answer = self.error(429, "too many requests")
            answer.headers["Retry-After"] = base.as_date(self._always.get("retry_after", 1))
            return answer
        job = self.find(request)
        return self.json(self.public(job)) if job else self.error(404, "job not found")

    async def stream(self, request):
        """One look: what came since the last one."""
        job = self.find(request)
        if job is None:
            return self.error(404, "job not found")
        new = job["pieces"][job["given"] :]
        job["given"] += len(new)
        pieces = [{"output": p, "metrics": {"avg_gen_throughput": 1}} for p in new]
        return self.json(
            {"status": job["status"], "stream": pieces} if self.trap("stream_form") == "object" else pieces
        )

    async def cancel(self, request):
        job = self.find(request)
        if job is None:
            return self.error(404, "job not found")
        if job["status"] not in ENDED:
            job["status"] = "CANCELLED"
        return self.json({"id": job["id"], "status": job["status"]})

    async def retry(self, request):
        job = self.find(request)
        if job is None or job["status"] not in ("FAILED", "TIMED_OUT"):
            return self.error(400, "only a job that failed or timed out can be tried again")
        job.update(status="IN_QUEUE", error=None, pieces=[], given=0)
        self.tasks[job["id"]] = asyncio.create_task(self.work_on(job, {}))
        return self.json({"id": job["id"], "status": "IN_QUEUE"})

    async def purge(self, _):
        waiting = [j for j in self.jobs.values() if j["status"] == "IN_QUEUE"]
        for job in waiting:
            job["status"] = "CANCELLED"
        return self.json({"removed": len(waiting), "status": "completed"})

    async def health(self, _):
        states = [j["status"] for j in self.jobs.values()]
        jobs = {
            "completed": states.count("COMPLETED"),
            "failed": states.count("FAILED"),
            "inProgress": states.count("IN_PROGRESS"),
            "inQueue": states.count("IN_QUEUE"),
            "retried": 0,
        }
        return self.json({"jobs": jobs, "workers": {"idle": 1, "running": 0}})
