"""A server of large files, as models are fetched from: ranges, an ETag, and connections that break."""

import asyncio
import hashlib

from aiohttp import web

from . import base
from .base import SEEN


class FileDouble(base.Double):
    kind = "files"
    extra_traps = {
        "cut_bytes": "the connection breaks after so many bytes",
        "no_range": "it only gives whole files",
        "no_etag": "nothing to tell a changed file by",
        "slow": "so many bytes every 20 ms",
        "redirect": "to the same file elsewhere",
    }

    def __init__(self, files, **rest):
        super().__init__(**rest)
        self.files = dict(files)

    def routes(self, router):
        router.add_get("/elsewhere/{name}", self.give)
        router.add_get("/{name}", self.work(self.first))

    async def first(self, request):
        if self.trap("redirect"):
            return web.Response(status=302, headers={"Location": f"/elsewhere/{request.match_info['name']}"})
        return await self.give(request)

    async def give(self, request):
        held = self.files.get(request.match_info["name"])
        if held is None:
            return web.Response(status=404, text="not found")
        etag = f'"{hashlib.md5(held).hexdigest()}"'
        headers = {} if self.trap("no_etag") else {"ETag": etag}
        start, status = 0, 200
        asked = request.headers.get("Range", "")
        if asked.startswith("bytes=") and not self.trap("no_range"):
            same = request.headers.get("If-Range", etag) == etag
            start = int(asked[6:].split("-")[0]) if same else 0
            if start >= len(held) and start:
                return web.Response(status=416, headers={"Content-Range": f"bytes */{len(held)}"})
            if same:
                status = 206
                headers["Content-Range"] = f"bytes {start}-{len(held) - 1}/{len(held)}"
        headers |= {"Content-Length": str(len(held) - start), "Content-Type": "application/octet-stream"}
        if not self.trap("no_range"):
            headers["Accept-Ranges"] = "bytes"
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        request[SEEN].status = status
        end = len(held)
        if (cut := self.trap("cut_bytes")) is not None:
            end = min(end, start + cut)
        step = self.trap("slow") or 1 << 16
        for at in range(start, end, step):
            part = held[at : min(end, at + step)]
            await response.write(part)
            request[SEEN].sent += part
            if self.trap("slow"):
                await asyncio.sleep(0.02)
        if end < len(held):
            await asyncio.sleep(0.05)  # what was written is on its way
            raise base.Cut
        await response.write_eof()
        return response
