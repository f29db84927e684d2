"""python plain_service.py PORT: a service of the kind "other" that does what files in its folder say.

sick: answers 500. crash: says why and ends with code 3, at once when it is there at the start. talk: writes its bytes
as they are. child: starts a process that leaves its group and session, and writes its number to child.pid. eat: takes
so many MiB. On SIGTERM it writes "ended politely" and ends; with `stubborn` it does not.
"""

import http.server
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

HERE = pathlib.Path.cwd()
held = []


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        good = not (HERE / "sick").exists()
        self.send_response(200 if good else 500)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


def polite(*_):
    if not (HERE / "stubborn").exists():
        (HERE / "ended").write_text("ended politely")
        print("ended politely", flush=True)
        os._exit(0)


def crash():
    print("reading the configuration\nno room left: giving up", file=sys.stderr, flush=True)
    os._exit(3)


def obey():
    while True:
        if (HERE / "crash").exists():
            crash()
        if (HERE / "talk").exists():
            said = (HERE / "talk").read_bytes()
            (HERE / "talk").unlink()
            sys.stdout.buffer.write(said)
            sys.stdout.buffer.flush()
        if (HERE / "eat").exists():
            mib = int((HERE / "eat").read_text())
            (HERE / "eat").unlink()
            held.append(bytearray(os.urandom(1024) * 1024 * mib))
        time.sleep(0.05)


signal.signal(signal.SIGTERM, polite)
if (HERE / "crash").exists():
    crash()
if (HERE / "child").exists():
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    (HERE / "child.pid").write_text(str(child.pid))
with open(HERE / "starts", "a") as starts:
    starts.write(f"{os.getpid()}\n")
print("listening, started with", sys.argv[2:], "as", os.environ.get("WHO", "nobody"), flush=True)
threading.Thread(target=obey, daemon=True).start()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answers).serve_forever()
