"""ComfyUI: its queue, its WebSocket and its history, with nodes that take no time to think."""

import asyncio
import json
import struct
import uuid

from aiohttp import WSMsgType, web

from . import base
from .base import SEEN, compact
from .comfyui_graph import LEAST, NODES, SAMPLERS, SCHEDULERS, as_uuid, node_errors, ordered
from .pictures import png


class Interrupted(Exception):
    pass


class ComfyUIDouble(base.Double):
    kind = "comfyui"
    extra_traps = {
        "lose_ws_after": "closes the WebSocket after so many messages of a prompt",
        "no_ws": "refuses WebSockets",
        "silent_ws": "the WebSocket says nothing of a prompt",
        "history_lag": "so many answers `{}` of the history after a prompt has ended",
        "empty_outputs": "a prompt ends well, and the history names no picture",
        "missing_picture": "/view does not find the picture",
        "oom": "the sampler runs out of memory",
        "no_kernel": "the GPU is too new for the build",
        "stall_at": "hangs at this step",
        "partial": "200 with node_errors",
        "no_jobs": "an older one, without /api/jobs",
        "old_missing_node": "the older form of the error of an unknown class",
        "uuid_only": "a prompt_id must be a UUID",
        "forget": "its history is lost when a prompt ends, as by a restart",
    }

    def __init__(self, checkpoints=("sd15.safetensors",), step_s=0.0, **rest):
        super().__init__(**rest)
        self.checkpoints, self.step_s = list(checkpoints), step_s
        self.sockets = {}
        self.pending, self.current, self.history = [], None, {}
        self.pictures, self.cached, self.lags = {}, {}, {}
        self.number = 0
        self.interrupted = set()
        self.freed = 0

    def routes(self, router):
        for prefix in ("", "/api"):
            router.add_get(prefix + "/ws", self.ws)
            router.add_post(prefix + "/prompt", self.work(self.submit))
            router.add_get(prefix + "/prompt", self.info)
            router.add_get(prefix + "/queue", self.queue)
            router.add_post(prefix + "/queue", self.change_queue)
            router.add_post(prefix + "/interrupt", self.interrupt)
            router.add_post(prefix + "/free", self.free)
            router.add_get(prefix + "/history", self.show_history)
            router.add_get(prefix + "/history/{id}", self.show_history)
            router.add_post(prefix + "/history", self.change_history)
            router.add_get(prefix + "/view", self.view)
            router.add_get(prefix + "/object_info", self.object_info)
            router.add_get(prefix + "/object_info/{name}", self.object_info)
            router.add_get(prefix + "/models", self.folders)
            router.add_get(prefix + "/models/{folder}", self.folder)
            router.add_get(prefix + "/system_stats", self.stats)
        router.add_get("/api/jobs", self.jobs)
        router.add_get("/api/jobs/{id}", self.job)
        router.add_post("/api/jobs/{id}/cancel", self.cancel_job)

    async def begin(self):
        self.work_to_do = asyncio.Event()
        return [asyncio.create_task(self.execute_all())]

    # ---------------------------------------------------------------------------------------------------- requests

    async def submit(self, request):
        try:
            body = json.loads(request[SEEN].body)
        except ValueError:
            return self.json({"error": "Invalid JSON"}, 400)
        if "prompt" not in body:
            return self.refuse("no_prompt", "No prompt provided", "No prompt provided")
        prompt_id = body.get("prompt_id") or str(uuid.UUID(int=self.number + 0x1234_0000))
        if self.trap("uuid_only") and str(prompt_id) != str(as_uuid(prompt_id)):
            return self.refuse("invalid_prompt_id", "prompt_id must be a UUID", str(prompt_id))
        prompt = body["prompt"]
        if refused := self.invalid(prompt):
            return refused
        number = body.get("number", self.number)
        self.number += 1
        traps = {**self._always, **self._active.get(asyncio.current_task(), {})}
        item = {
            "number": number,
            "id": prompt_id,
            "prompt": prompt,
            "client": body.get("client_id"),
            "extra": body.get("extra_data", {}),
            "traps": traps,
            "cancelled": False,
        }
        self.pending.insert(0 if body.get("front") else len(self.pending), item)
        self.work_to_do.set()
        await self.say_status()
        errors = (
            {"10": {"errors": [], "dependent_outputs": ["10"], "class_type": "SaveImage"}}
            if traps.get("partial")
            else {}
        )
        return self.json({"prompt_id": prompt_id, "number": number, "node_errors": errors})

    def refuse(self, kind, message, details, nodes=None, extra=None):
        error = {"type": kind, "message": message, "details": details, "extra_info": extra or {}}
        return self.json({"error": error, "node_errors": nodes or {}}, 400)

    def invalid(self, prompt):
        for node, what in prompt.items():
            name = what.get("class_type")
            if name in NODES:
                continue
            if self.trap("old_missing_node"):
                return self.refuse(
                    "invalid_prompt",
                    "Cannot execute because a node is missing the class_type property.",
                    f"Node ID '#{node}'" if name is None else f"Cannot execute because node {name} does not exist.",
                )
            title = what.get("_meta", {}).get("title", name)
            return self.refuse(
                "missing_node_type",
                f"Node '{title}' not found. The custom node may not be installed.",
                f"Node ID '#{node}'",
                extra={"node_id": node, "class_type": name, "node_title": title},
            )
        outputs = [n for n, w in prompt.items() if NODES[w["class_type"]][1]]
        if not outputs:
            return self.refuse("prompt_no_outputs", "Prompt has no outputs", "")
        nodes, details = {}, []
        for node, what in prompt.items():
            errors = node_errors(prompt, what, self.checkpoints)
            if errors:
                nodes[node] = {"errors": errors, "dependent_outputs": outputs, "class_type": what["class_type"]}
                details += [e["details"] for e in errors]
        if nodes:
            return self.refuse(
                "prompt_outputs_failed_validation", "Prompt outputs failed validation", "\n".join(details), nodes
            )
        return None

    def left(self):
        return len(self.pending) + (self.current is not None)

    async def info(self, _):
        return self.json({"exec_info": {"queue_remaining": self.left()}})

    async def queue(self, _):
        def row(item):
            return [item["number"], item["id"], item["prompt"], item["extra"], ["9"]]

        return self.json(
            {
                "queue_running": [row(self.current)] if self.current else [],
                "queue_pending": [row(i) for i in self.pending],
            }
        )

    async def change_queue(self, request):
        body = json.loads(request[SEEN].body)
        gone = body.get("delete", [])
        self.pending = [] if body.get("clear") else [i for i in self.pending if i["id"] not in gone]
        return web.Response()

    async def interrupt(self, request):
        body = json.loads(request[SEEN].body or b"{}")
        if self.current and body.get("prompt_id", self.current["id"]) == self.current["id"]:
            self.current["cancelled"] = True
        return web.Response()

    async def free(self, _):
        self.freed += 1
        return web.Response()

    async def show_history(self, request):
        wanted = request.match_info.get("id")
        if wanted is None:
            return self.json(self.history)
        if self.lags.get(wanted, 0) > 0:
            self.lags[wanted] -= 1
            return self.json({})
        return self.json({wanted: self.history[wanted]} if wanted in self.history else {})

    async def change_history(self, request):
        body = json.loads(request[SEEN].body)
        for one in list(self.history) if body.get("clear") else body.get("delete", []):
            self.history.pop(one, None)
        return web.Response()

    async def view(self, request):
        name = request.query.get("filename", "")
        if ".." in name or name.startswith("/"):
            return web.Response(status=400)
        picture = self.pictures.get((request.query.get("type", "output"), name))
        if picture is None or self.trap("missing_picture"):
            return web.Response(status=404)
        return web.Response(
            body=picture, content_type="image/png", headers={"Content-Disposition": f'filename="{name}"'}
        )

    async def object_info(self, request):
        def card(name):
            choices = {"ckpt_name": [self.checkpoints, {}], "sampler_name": [SAMPLERS], "scheduler": [SCHEDULERS]}
            required = {i: choices.get(i, ["INT" if i in LEAST else "STRING", {}]) for i in NODES[name][0]}
            return {
                "input": {"required": required},
                "input_order": {"required": list(required)},
                "output": [],
                "output_is_list": [],
                "output_name": [],
                "name": name,
                "display_name": name,
                "description": "",
                "python_module": "nodes",
                "category": "",
                "output_node": NODES[name][1],
            }

        name = request.match_info.get("name")
        return self.json({n: card(n) for n in ([name] if name else NODES) if n in NODES})

    async def folders(self, _):
        return self.json(["checkpoints", "loras", "vae"])

    async def folder(self, request):
        name = request.match_info["folder"]
        if name not in ("checkpoints", "loras", "vae"):
            return web.Response(status=404)
        return self.json(self.checkpoints if name == "checkpoints" else [])

    async def stats(self, _):
        gib = 1 << 30
        return self.json(
            {
                "system": {
                    "os": "posix",
                    "ram_total": 64 * gib,
                    "ram_free": 48 * gib,
                    "comfyui_version": "0.3.64",
                    "python_version": "3.11.7",
                    "pytorch_version": "2.8.0+cu128",
                    "embedded_python": False,
                    "argv": ["main.py"],
                },
                "devices": [
                    {
                        "name": "cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync",
                        "type": "cuda",
                        "index": 0,
                        "vram_total": 24 * gib,
                        "vram_free": 22 * gib,
                        "torch_vram_total": 0,
                        "torch_vram_free": 0,
                    }
                ],
            }
        )

    # ---- the newer routes of jobs

    def status_of(self, prompt_id):
        if self.current and self.current["id"] == prompt_id:
            return "in_progress"
        if any(i["id"] == prompt_id for i in self.pending):
            return "pending"
        if prompt_id in self.interrupted:
            return "cancelled"
        if prompt_id in self.history:
            return "completed" if self.history[prompt_id]["status"]["status_str"] == "success" else "failed"
        return None

    async def jobs(self, _):
        if self.trap("no_jobs"):
            return web.Response(status=404)
        known = [i["id"] for i in self.pending] + ([self.current["id"]] if self.current else []) + list(self.history)
        return self.json(
            {
                "jobs": [{"id": i, "status": self.status_of(i)} for i in known],
                "pagination": {"offset": 0, "limit": None, "total": len(known), "has_more": False},
            }
        )

    async def job(self, request):
        wanted = request.match_info["id"]
        status = self.status_of(wanted)
        if self.trap("no_jobs"):
            return web.Response(status=404)
        if status is None:
            return self.json({"error": "Job not found"}, 404)
        return self.json({"id": wanted, "status": status, "outputs": self.history.get(wanted, {}).get("outputs", {})})

    async def cancel_job(self, request):
        wanted = request.match_info["id"]
        if self.trap("no_jobs"):
            return web.Response(status=404)
        status = self.status_of(wanted)
        if status == "in_progress":
            self.current["cancelled"] = True
        self.pending = [i for i in self.pending if i["id"] != wanted]
        return self.json({"cancelled": status in ("in_progress", "pending")})

    # --------------------------------------------------------------------------------------------------- WebSocket

    async def ws(self, request):
        if self.trap("no_ws"):
            return web.Response(status=500)
        client = request.query.get("clientId") or uuid.uuid4().hex
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        socket.metadata_wanted, socket.first = False, True
        if old := self.sockets.get(client):
            await old.close()
        self.sockets[client] = socket
        await socket.send_str(compact(self.status_message(client)).decode())
        if self.current and self.current["client"] == client:
            await self.tell(
                self.current, "executing", {"node": self.current.get("node"), "prompt_id": self.current["id"]}
            )
        async for message in socket:
            if message.type == WSMsgType.TEXT and socket.first:
                socket.first = False
                said = json.loads(message.data)
                if said.get("type") == "feature_flags":
                    socket.metadata_wanted = bool(said.get("data", {}).get("supports_preview_metadata"))
                    await socket.send_str(
                        '{"type":"feature_flags","data":{"supports_preview_metadata":true,"max_upload_size":104857600}}'
                    )
        if self.sockets.get(client) is socket:
            del self.sockets[client]
        return socket

    def status_message(self, sid=None):
        status = {"status": {"exec_info": {"queue_remaining": self.left()}}}
        return {"type": "status", "data": {**status, "sid": sid} if sid else status}

    async def say_status(self):
        for socket in list(self.sockets.values()):
            await self._send(socket, self.status_message())

    async def _send(self, socket, message):
        try:
            if isinstance(message, bytes):
                await socket.send_bytes(message)
            else:
                await socket.send_str(compact(message).decode())
        except (ConnectionError, RuntimeError):
            pass

    async def tell(self, item, kind, values):
        await self.pass_on(item, {"type": kind, "data": values})

    async def pass_on(self, item, message):
        """Only the client that submitted hears of its prompt."""
        socket = self.sockets.get(item["client"])
        if socket is None or item["traps"].get("silent_ws"):
            return
        item["told"] = item.get("told", 0) + 1
        if item["told"] - 1 == item["traps"].get("lose_ws_after"):
            await socket.close()
            self.sockets.pop(item["client"], None)
            return
        await self._send(socket, message)

    # --------------------------------------------------------------------------------------------------- execution

    async def execute_all(self):
        while True:
            while not self.pending:
                self.work_to_do.clear()
                await self.work_to_do.wait()
            self.current = item = self.pending.pop(0)
            self.news()
            messages = []
            try:
                outputs = await self.execute(item, messages)
                status = {"status_str": "success", "completed": True, "messages": messages}
            except Interrupted:
                self.interrupted.add(item["id"])
                outputs, status = {}, {"status_str": "error", "completed": False, "messages": messages}
            except MemoryError:
                outputs, status = {}, {"status_str": "error", "completed": False, "messages": messages}
            if item["traps"].get("empty_outputs"):
                outputs = {}
            if not item["traps"].get("forget"):
                self.lags[item["id"]] = item["traps"].get("history_lag", 0)
                meta = {n: {"node_id": n, "display_node": n, "parent_node": None, "real_node_id": n} for n in outputs}
                self.history[item["id"]] = {
                    "prompt": [item["number"], item["id"], item["prompt"], item["extra"], list(outputs)],
                    "outputs": outputs,
                    "status": status,
                    "meta": meta,
                }
            self.current = None
            if status["completed"]:
                await self.tell(item, "executing", {"node": None, "prompt_id": item["id"]})
            await self.say_status()
            self.news()

    async def execute(self, item, messages):
        self.clock = getattr(self, "clock", 1712345678000)

        async def event(kind, **values):
            self.clock += 7
            values = {"prompt_id": item["id"], **values, "timestamp": self.clock}
            messages.append([kind, values])
            await self.tell(item, kind, values)

        await event("execution_start")
        prompt, key = item["prompt"], compact(item["prompt"])
        if key in self.cached:
            await event("execution_cached", nodes=list(prompt))
            await event("execution_success")
            return self.cached[key]
        await event("execution_cached", nodes=[])
        outputs, done = {}, []
        for node in ordered(prompt):
            what = prompt[node]
            item["node"] = node
            await self.tell(item, "executing", {"node": node, "display_node": node, "prompt_id": item["id"]})
            if what["class_type"] == "KSampler":
                await self.sample(item, node, what, done, event)
            elif what["class_type"] == "SaveImage":
                outputs[node] = self.save(prompt, what)
                await self.tell(
                    item,
                    "executed",
                    {"node": node, "display_node": node, "output": outputs[node], "prompt_id": item["id"]},
                )
            done.append(node)
        self.cached[key] = outputs
        await event("execution_success")
        return outputs

    async def sample(self, item, node, what, done, event):
        steps, traps = what["inputs"]["steps"], item["traps"]
        for step in range(1, steps + 1):
            while traps.get("stall_at") == step and not item["cancelled"]:
                await asyncio.sleep(0.02)
            await asyncio.sleep(self.step_s)
            about = {"node_id": node, "node_type": what["class_type"], "executed": list(done)}
            if item["cancelled"]:
                await event("execution_interrupted", **about)
                raise Interrupted
            if traps.get("oom") or traps.get("no_kernel"):
                kind, text = (
                    "torch.OutOfMemoryError",
                    "CUDA out of memory. Tried to allocate 2 GiB.\nThis error means you ran out of memory on your GPU.",
                )
                if traps.get("no_kernel"):
                    kind, text = "RuntimeError", "CUDA error: no kernel image is available for execution on the device"
                await event(
                    "execution_error",
                    **about,
                    exception_message=text,
                    exception_type=kind,
                    traceback=['  File "execution.py"\n'],
                    current_inputs={},
                    current_outputs=[],
                )
                raise MemoryError
            state = {
                "value": step,
                "max": steps,
                "state": "running",
                "node_id": node,
                "prompt_id": item["id"],
                "display_node_id": node,
                "parent_node_id": None,
                "real_node_id": node,
            }
            await self.tell(item, "progress_state", {"prompt_id": item["id"], "nodes": {node: state}})
            await self.tell(item, "progress", {"value": step, "max": steps, "prompt_id": item["id"], "node": node})
            await self.preview(item, node, step)

    async def preview(self, item, node, step):
        socket, picture = self.sockets.get(item["client"]), png(8, 8, step * 9)
        if socket is not None and socket.metadata_wanted:
            about = compact(
                {
                    "node_id": node,
                    "prompt_id": item["id"],
                    "display_node_id": node,
                    "parent_node_id": None,
                    "real_node_id": node,
                    "image_type": "image/png",
                }
            )
            await self.pass_on(item, struct.pack(">II", 4, len(about)) + about + picture)
        else:
            await self.pass_on(item, struct.pack(">II", 1, 2) + picture)

    def save(self, prompt, what):
        samplers = [w["inputs"] for w in prompt.values() if w["class_type"] == "KSampler"]
        latents = [w["inputs"] for w in prompt.values() if w["class_type"] == "EmptyLatentImage"]
        size = latents[0] if latents else {"width": 64, "height": 64, "batch_size": 1}
        images = []
        for index in range(size["batch_size"]):
            name = f"{what['inputs']['filename_prefix']}_{len(self.pictures) + 1:05d}_.png"
            shade = (samplers[0]["seed"] if samplers else 0) * 31 + index
            self.pictures["output", name] = png(size["width"], size["height"], shade)
            images.append({"filename": name, "subfolder": "", "type": "output"})
        return {"images": images}
