"""REST and blobs over the standard library's HTTP client, with a small pool of kept-alive connections."""

import hashlib
import http.client
import json
import ssl
import threading
import time
import urllib.parse

from grange import errors

_IDLE_KEPT = 4
_KNOWN_FOR = 30.0  # seconds for which a blob that we stored counts as still there
_HEAD_FROM = 64 * 1024  # bytes: ask before sending more than this


class Http:
    """All calls may come from any thread. Errors: grange.ConnectionError, or GrangeError with the server's code."""

    def __init__(self, url, token, timeout=60.0):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the farm's URL must look like http://127.0.0.1:8000, not {url!r}")
        self.url = url.rstrip("/")
        self.secure = parts.scheme == "https"
        self.host = parts.hostname
        self.port = parts.port or (443 if self.secure else 80)
        self.prefix = parts.path.rstrip("/")
        self.token = token
        self.timeout = timeout
        self.reset()

    def reset(self):
        """Forget all connections (after a fork)."""
        self._lock = threading.Lock()
        self._idle = []
        self._known = {}  # sha -> monotonic time

    def headers(self):
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def ssl_context(self):
        return ssl.create_default_context()

    def _connect(self, timeout):
        if self.secure:
            return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=self.ssl_context())
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def open(self, method, path, body=None, headers=None, timeout=None):
        """Send and return (connection, response), not read yet. An idle connection that the server closed is
        replaced."""
        timeout = timeout or self.timeout
        head = {**self.headers(), **(headers or {})}
        while True:
            with self._lock:
                conn = self._idle.pop() if self._idle else None
            reused = conn is not None
            if conn is None:
                conn = self._connect(timeout)
            elif conn.sock is not None:
                conn.sock.settimeout(timeout)
            try:
                conn.request(method, self.prefix + path, body=body, headers=head)
                return conn, conn.getresponse()
            except (OSError, http.client.HTTPException) as error:
                conn.close()
                if reused and not isinstance(error, TimeoutError):
                    continue
                raise unreachable(self.url, error) from error

    def request(self, method, path, body=None, headers=None, timeout=None):
        """(status, headers, bytes)."""
        conn, response = self.open(method, path, body, headers, timeout)
        try:
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            conn.close()
            raise unreachable(self.url, error) from error
        with self._lock:
            if not response.will_close and len(self._idle) < _IDLE_KEPT:
                self._idle.append(conn)
                conn = None
        if conn is not None:
            conn.close()
        if response.status == 401:
            raise refused(self.url, self.token, data)
        return response.status, response.headers, data

    def json(self, method, path, body=None, timeout=None, **query):
        """The answer's JSON; raises GrangeError for an error answer."""
        query = {k: v for k, v in query.items() if v is not None}
        if query:
            path += "?" + urllib.parse.urlencode(query)
        headers = {}
        if body is not None:
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        status, _, data = self.request(method, path, body, headers, timeout)
        if status >= 400:
            raise answer_error(status, data)
        return json.loads(data) if data else None

    def put_blob(self, data, sha=None):
        """Store bytes by their SHA-256 and return its 64 hex digits. What is there already is not sent again."""
        sha = sha or hashlib.sha256(data).hexdigest()
        now = time.monotonic()
        if now - self._known.get(sha, -1e9) < _KNOWN_FOR:
            return sha
        path = f"/api/blobs/{sha}"
        if len(data) < _HEAD_FROM or self.request("HEAD", path)[0] != 200:
            status, _, answer = self.request(
                "PUT", path, data, {"Content-Type": "application/octet-stream"}, timeout=600
            )
            if status not in (200, 201):
                raise answer_error(status, answer)
        if len(self._known) > 10_000:
            self._known.clear()
        self._known[sha] = now
        return sha

    def get_blob(self, sha):
        """The bytes of a blob, checked against its name."""
        status, _, data = self.request("GET", f"/api/blobs/{sha}", timeout=600)
        if status != 200:
            raise answer_error(status, data)
        if hashlib.sha256(data).hexdigest() != sha:
            raise errors.GrangeError(f"the bytes of blob {sha} were damaged on the way")
        return data

    def close(self):
        with self._lock:
            idle, self._idle = self._idle, []
        for conn in idle:
            conn.close()


def unreachable(url, error):
    return errors.ConnectionError(
        f"no Grange server at {url} ({error}). Start one with `grange up`, or set GRANGE_URL to the address of yours."
    )


def no_token(url):
    return farm_error(
        "unauthenticated", f"the server at {url} refused us: it wants a token. Set GRANGE_TOKEN or connect(token=...)"
    )


def refused(url, token, data):
    """Of an answer with status 401: the server knows best what is wrong with a token that was sent."""
    error = answer_error(401, data)
    return error if token and error.code == "unauthenticated" else no_token(url)


def answer_error(status, data):
    """The error object of a REST answer as an exception."""
    try:
        info = json.loads(data)["error"]
        return farm_error(str(info.get("code", "")), str(info.get("message", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return farm_error("", f"the server answered with HTTP status {status}")


def farm_error(code, message):
    """A GrangeError of the fitting class for a code of the server."""
    cls = errors.ConnectionError if code in ("unavailable", "unauthenticated", "forbidden") else errors.GrangeError
    error = cls(message or code or "the server refused the request")
    error.code = code
    return error
