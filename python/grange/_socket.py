"""One WebSocket: bytes of whole binary messages in and out. Connecting blocks; everything after that does not."""

import socket
import ssl

from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from grange import errors
from grange._http import answer_error, refused, unreachable

_CONNECT_TIMEOUT = 10.0
_FRAME_LIMIT = 17 << 20
_READ = 1 << 18
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Lost(Exception):
    """The socket is gone; the session may go on over another one."""


class Socket:
    """Not thread-safe: the connection's lock guards it. `unsent` is what the kernel has not taken yet."""

    def __init__(self, http, hello):
        """Connect, upgrade, send `hello`, and wait for the first messages, which are in `first`.

        Raises grange.ConnectionError.
        """
        self.http = http
        self.unsent = bytearray()
        self.first = []
        self._fragments = None
        try:
            self.sock = socket.create_connection((http.host, http.port), timeout=_CONNECT_TIMEOUT)
        except OSError as error:
            raise unreachable(http.url, error) from error
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if http.secure:
                self.sock = http.ssl_context().wrap_socket(self.sock, server_hostname=http.host)
            self._shake(hello)
            self.sock.setblocking(False)
        except BaseException as error:
            self.sock.close()
            # Our own errors are OSErrors too, and say already what is wrong.
            if isinstance(error, (OSError, EOFError)) and not isinstance(error, errors.GrangeError):
                raise unreachable(http.url, error) from error
            raise

    @property
    def open(self):
        return self._ws.state is State.OPEN

    def _shake(self, hello):
        http = self.http
        scheme = "wss" if http.secure else "ws"
        host = f"[{http.host}]" if ":" in http.host else http.host
        ws = ClientProtocol(parse_uri(f"{scheme}://{host}:{http.port}{http.prefix}/ws"), max_size=_FRAME_LIMIT)
        self._ws = ws
        request = ws.connect()
        for name, value in http.headers().items():
            request.headers[name] = value
        ws.send_request(request)
        self._push()
        upgraded = False
        while not self.first:
            size, events = self._receive()
            for event in events:
                if upgraded:
                    self._assemble(event, self.first)
                elif ws.handshake_exc is None:
                    upgraded = True
                    ws.send_binary(hello)
                    self._push()
                else:
                    raise self._refused(event)
            if not upgraded and ws.handshake_exc is not None:
                raise self._refused(None)
            if size == 0 and not self.first:
                raise EOFError("it closed the connection during the handshake")

    def _receive(self):
        """(bytes received, 0 at the end; the WebSocket's events in them)."""
        data = self.sock.recv(_READ)
        if data:
            self._ws.receive_data(data)
        else:
            self._ws.receive_eof()
        return len(data), self._ws.events_received()

    def _push(self):
        for chunk in self._ws.data_to_send():
            if chunk:
                self.sock.sendall(chunk)

    def _refused(self, response):
        status = getattr(response, "status_code", 0)
        if status == 401:
            return refused(self.http.url, self.http.token, response.body or b"")
        if status == 403:
            return answer_error(status, response.body or b"")
        return unreachable(self.http.url, f"WebSocket handshake failed: {self._ws.handshake_exc}")

    def send(self, message):
        """Send a binary message; what does not fit stays in `unsent`, for `flush`. Nothing when it is closing."""
        if self.open:
            self._ws.send_binary(message)
            self._collect()

    def ping(self):
        if self.open:
            self._ws.send_ping(b"grange")
            self._collect()

    def leave(self):
        """Start the closing handshake."""
        if self.open:
            self._ws.send_close(1000)
            self._collect()

    def _collect(self):
        for chunk in self._ws.data_to_send():
            self.unsent += chunk
        self.flush()

    def flush(self):
        """Give the kernel what it takes."""
        unsent, sent = self.unsent, 0
        if not unsent:
            return
        try:
            with memoryview(unsent) as view:
                while sent < len(view):
                    sent += self.sock.send(view[sent : sent + (1 << 20)])
        except _NOT_NOW:
            pass
        except OSError:
            pass  # the reader sees it too
        del unsent[:sent]

    def read(self):
        """The messages that have come. Raises Lost when the socket broke; see `open` for an orderly end."""
        messages = []
        try:
            while True:
                size, events = self._receive()
                for event in events:
                    self._assemble(event, messages)
                # TLS may hold more than a selector knows of.
                if size < _READ and not (self.http.secure and self.sock.pending()):
                    break
        except _NOT_NOW:
            pass
        except OSError as error:
            raise Lost(str(error)) from error
        self._collect()
        return messages

    def _assemble(self, event, messages):
        opcode = event.opcode
        if opcode is Opcode.BINARY:
            if event.fin:
                messages.append(event.data)
            else:
                self._fragments = [event.data]
        elif opcode is Opcode.CONT and self._fragments is not None:
            self._fragments.append(event.data)
            if event.fin:
                messages.append(b"".join(self._fragments))
                self._fragments = None

    def why(self):
        return f"the server closed the connection ({self._ws.close_code or 'no code'} {self._ws.close_reason or ''})"

    def close(self):
        self.sock.close()
