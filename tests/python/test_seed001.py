"""The example client and the example worker of the first page on the farm's WebSocket, as printed there, work
unchanged.

Only the address, the hex of the function, and (for the worker) the handling of a task are put in.
"""

import asyncio
import contextlib
import io
import json
import textwrap
import threading

import cloudpickle
import pytest

CLIENT = """
import websockets
import json

async def submit_job():
    uri = "ws://localhost:9000"
    async with websockets.connect(uri) as websocket:
        # Submit a job
        message = {
            "type": "submit_job",
            "job_id": "job-123",
            "data": {
                "func_code": "serialized_function_hex",
                "args_list": [[1], [2], [3], [4], [5]],
                "total_tasks": 5
            }
        }
        await websocket.send(json.dumps(message))
        
        # Receive results
        response = await websocket.recv()
        result = json.loads(response)
        print(f"Job result: {result}")
"""  # noqa: W293

WORKER = """
import websockets
import json

async def worker_loop():
    uri = "ws://localhost:9000"
    async with websockets.connect(uri) as websocket:
        # Register as worker
        message = {
            "type": "register_worker",
            "worker_id": "worker-1"
        }
        await websocket.send(json.dumps(message))
        
        # Listen for task assignments
        while True:
            task = await websocket.recv()
            task_data = json.loads(task)
            # Execute task...
"""  # noqa: W293

EXECUTE = """
            if task_data["type"] != "assign_task":
                continue
            data = task_data["data"]
            function = pickle.loads(bytes.fromhex(data["func_code"]))
            done.append((data["task_id"], function(*data["task_args"])))
            await websocket.send(json.dumps({
                "type": "task_result", "job_id": task_data["job_id"], "worker_id": "worker-1",
                "data": {"task_id": data["task_id"], "result": done[-1][1]},
            }))
"""


@pytest.fixture
def ws_url(server):
    assert server.ws_url, "the farm has no WebSocket port"
    return server.ws_url


def run_client(ws_url, job_id, function):
    """Run the example; returns what it printed. `got` gets the first message's text by way of print."""
    code = CLIENT.replace("ws://localhost:9000", ws_url).replace("job-123", job_id)
    code = code.replace("serialized_function_hex", cloudpickle.dumps(function).hex())
    scope = {}
    exec(code, scope)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        asyncio.run(asyncio.wait_for(scope["submit_job"](), 40))
    return out.getvalue()


def message_of(printed):
    import ast

    assert printed.startswith("Job result: ")
    return ast.literal_eval(printed.removeprefix("Job result: "))


def test_the_example_client(ws_url):
    message = message_of(run_client(ws_url, "job-123", lambda x: x * x))
    assert message["type"] == "job_result" and message["job_id"] == "job-123"
    assert message["data"]["results"] == [1, 4, 9, 16, 25]


def test_the_example_worker(ws_url, farm):
    """It registers, and gets its part of the work that the example client submits; the answers are its own."""
    code = WORKER.replace("ws://localhost:9000", ws_url) + EXECUTE
    assert code.startswith(WORKER.replace("ws://localhost:9000", ws_url))
    done = []
    scope = {"pickle": __import__("pickle"), "done": done}
    exec(textwrap.dedent(code), scope)
    loop = asyncio.new_event_loop()
    task = loop.create_task(scope["worker_loop"]())

    def work():
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        _until(lambda: any(w["id"] == "worker-1" or w["name"] == "worker-1" for w in farm.workers()))

        def slow(x):
            __import__("time").sleep(0.3)
            return x + 100

        message = message_of(run_client(ws_url, "job-worker", slow))
        assert message["data"]["results"] == [101, 102, 103, 104, 105]
        assert done, "the example worker got no task"
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
        loop.close()


def test_a_message_that_makes_no_sense(ws_url):
    from websockets.sync.client import connect

    with connect(ws_url) as ws:
        ws.send("{not json")
        assert json.loads(ws.recv(10))["type"] == "error"
        ws.send(json.dumps({"type": "get_job_status", "job_id": "no-such-job"}))
        assert json.loads(ws.recv(10))["type"] == "error"


def _until(condition):
    import time

    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
