"""Jobs of the engine image on a ComfyUI that behaves, and on one that does not."""

import hashlib
import json

import pytest
from ai_farm import call
from doubles import ComfyUIDouble
from doubles.pictures import png

CHECKPOINT = "house.safetensors"


@pytest.fixture(scope="module")
def comfy(farm, doubles_of_module):
    double = doubles_of_module.enter_context(ComfyUIDouble(checkpoints=[CHECKPOINT]))
    farm.worker("a", f"comfyui={double.url}")
    return double


@pytest.fixture(autouse=True)
def calm(comfy):
    comfy.calm()
    comfy.step_s = 0
    comfy.requests.clear()


def image(seed=1, **more):
    params = {"checkpoint": CHECKPOINT, "prompt": "a barn", "seed": seed, "steps": 3, "width": 64, "height": 32}
    return {"engine": "image", "image": {"params": {**params, **more.pop("params", {})}, **more}}


def prompts(double):
    return [r for r in double.requests if r.method == "POST" and r.path in ("/prompt", "/api/prompt")]


def sampler(request):
    return next(n["inputs"] for n in request.json["prompt"].values() if n["class_type"] == "KSampler")


def find_blobs(value):
    """Every SHA-256 in a result, wherever it stands."""
    if isinstance(value, dict):
        return [b for v in value.values() for b in find_blobs(v)]
    if isinstance(value, list):
        return [b for v in value for b in find_blobs(v)]
    is_one = isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
    return [value] if is_one else []


def test_pictures_come_back_as_they_were_made(farm, comfy):
    row = farm.one(**image(seed=5, params={"batch": 2}))
    assert row["status"] == "completed", row
    value = row["value"]
    made = [png(64, 32, 5 * 31 + index) for index in (0, 1)]
    assert len(value["images"]) == 2
    assert value["wall_seconds"] > 0
    assert value["seconds_per_image"] == pytest.approx(value["wall_seconds"] / 2, rel=0.01)
    hashes = find_blobs(value["images"])
    assert hashes == [hashlib.sha256(p).hexdigest() for p in made]
    for sha, picture in zip(hashes, made, strict=True):
        assert call(f"{farm.url}/api/blobs/{sha}")[2] == picture
    assert sampler(prompts(comfy)[-1])["seed"] == 5


def test_a_workflow_of_ones_own(farm, comfy):
    row = farm.one(engine="image", image={"workflow": prompt_graph()}, args=["a red barn"])
    assert row["status"] == "completed", row
    sent = prompts(comfy)[-1].json["prompt"]
    assert sent["6"]["inputs"]["text"] == "a red barn"


def prompt_graph():
    return {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "cfg": 8,
                "denoise": 1,
                "latent_image": ["5", 0],
                "model": ["4", 0],
                "negative": ["7", 0],
                "positive": ["6", 0],
                "sampler_name": "euler",
                "scheduler": "normal",
                "seed": 77,
                "steps": 2,
            },
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"batch_size": 1, "height": 32, "width": 32}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "{}"}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": "hands"}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "mine", "images": ["8", 0]}},
    }


TROUBLES = [{"lose_ws_after": 3}, {"no_ws": True}, {"silent_ws": True}, {"history_lag": 3}, {"no_jobs": True}]
TROUBLES += [{"uuid_only": True}]


@pytest.mark.parametrize("number", range(len(TROUBLES)))
def test_history_is_the_truth(farm, comfy, number):
    comfy.set(**TROUBLES[number])
    row = farm.one(**image(seed=100 + number))
    assert row["status"] == "completed", row
    assert len(row["value"]["images"]) == 1


@pytest.mark.parametrize(("trap", "seed"), [("empty_outputs", 200), ("missing_picture", 201)])
def test_no_picture_is_no_success(farm, comfy, trap, seed):
    comfy.set(**{trap: True})
    row = farm.one(**image(seed=seed), retries=0)
    assert row["status"] == "failed", row


@pytest.mark.parametrize(("trap", "name"), [("oom", "oom"), ("no_kernel", "cuda_unsupported_arch")])
def test_errors_have_a_class(farm, comfy, trap, name):
    comfy.set(**{trap: True})
    row = farm.one(**image(seed=300 + len(trap)), retries=0)
    assert (row["status"], row["exception"]) == ("failed", name), row


def test_a_missing_node_has_a_class(farm, comfy):
    graph = {**prompt_graph(), "20": {"class_type": "Reactor", "inputs": {}}}
    for old in (True, None):
        comfy.set(old_missing_node=old)
        row = farm.one(engine="image", image={"workflow": graph}, args=["x"], retries=0)
        assert (row["status"], row["exception"]) == ("failed", "missing_node"), row


def test_a_missing_checkpoint_has_a_class(farm, comfy):
    graph = prompt_graph()
    graph["4"]["inputs"]["ckpt_name"] = "gone.safetensors"
    row = farm.one(engine="image", image={"workflow": graph}, args=["x"], retries=0)
    assert (row["status"], row["exception"]) == ("failed", "missing_checkpoint"), row
    assert "gone.safetensors" in row["message"]


def test_a_checkpoint_that_nobody_has_waits_and_says_why(farm, comfy):
    job = farm.submit(**image(params={"checkpoint": "none.safetensors"}))
    assert "none.safetensors" in farm("explain", job + "/0").stdout
    farm("cancel", job)


def test_a_stall_ends_and_leaves_nothing_behind(farm, comfy):
    comfy.set(stall_at=2)
    row = farm.one(**image(seed=400, stall="2s"), retries=0)
    assert row["status"] == "failed", row
    comfy.wait_for(lambda d: d.left() == 0, what="the end of the prompt at the service")


def test_a_cancelled_picture_is_interrupted(farm, comfy):
    """And only that one: what someone else has in the queue is not touched."""
    comfy.once(stall_at=2)
    job = farm.submit(**image(seed=500))
    comfy.wait_for(lambda d: d.current is not None, what="the prompt")
    mine = comfy.current["id"]
    _, _, answer = call(comfy.url + "/prompt", {"prompt": prompt_graph(), "client_id": "someone else"})
    farm("cancel", job)
    comfy.wait_for(lambda d: mine in d.interrupted, what="the interrupting")
    comfy.wait_for(lambda d: json.loads(answer)["prompt_id"] in d.history, what="the other's picture")
    assert json.loads(answer)["prompt_id"] not in comfy.interrupted


def test_a_killed_worker_in_the_middle_of_a_picture(own_farm):
    with ComfyUIDouble(checkpoints=[CHECKPOINT], stall_at=2) as stuck, ComfyUIDouble(checkpoints=[CHECKPOINT]) as good:
        victim = own_farm.worker("stuck", f"comfyui={stuck.url}")
        job = own_farm.submit(**image(seed=600), retries=2)
        stuck.wait_for(lambda d: d.current is not None, what="the prompt")
        own_farm.worker("good", f"comfyui={good.url}")
        victim.kill()
        victim.wait()
        (row,) = own_farm.results(job, 90)
        assert (row["status"], row["attempt"]) == ("completed", 2), row


def test_a_mock_only_when_it_is_allowed(own_farm):
    own_farm.worker("bare")
    value = own_farm.one(**image(allow_mock=True))["value"]
    assert value["engine"] == "mock"
    assert value["mock_reason"]
