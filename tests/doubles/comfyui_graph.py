"""Graphs of ComfyUI: the few classes of nodes that a picture from a text needs, and what is wrong with one."""

import uuid

SAMPLERS = ["euler", "euler_ancestral", "heun", "dpmpp_2m", "ddim"]
SCHEDULERS = ["normal", "karras", "simple"]
NODES = {  # class: (required inputs, is an output)
    "CheckpointLoaderSimple": (["ckpt_name"], False),
    "CLIPTextEncode": (["text", "clip"], False),
    "EmptyLatentImage": (["width", "height", "batch_size"], False),
    "KSampler": (
        [
            "model",
            "seed",
            "steps",
            "cfg",
            "sampler_name",
            "scheduler",
            "positive",
            "negative",
            "latent_image",
            "denoise",
        ],
        False,
    ),
    "VAEDecode": (["samples", "vae"], False),
    "SaveImage": (["images", "filename_prefix"], True),
}
LEAST = {"steps": 1, "width": 16, "height": 16, "batch_size": 1}


def node_errors(prompt, what, checkpoints):
    """What validation finds wrong with one node."""
    errors, inputs = [], what.get("inputs", {})

    def wrong(kind, message, name, details, config=None, received=None):
        extra = {"input_name": name, "input_config": config, "received_value": received}
        errors.append({"type": kind, "message": message, "details": details, "extra_info": extra})

    choices = {"ckpt_name": checkpoints, "sampler_name": SAMPLERS, "scheduler": SCHEDULERS}
    for name in NODES[what["class_type"]][0]:
        if name not in inputs:
            wrong("required_input_missing", "Required input is missing", name, name)
            continue
        value = inputs[name]
        if isinstance(value, list):
            if len(value) != 2 or str(value[0]) not in prompt:
                wrong(
                    "bad_linked_input",
                    "Bad linked input, must be a length-2 list of [node_id, slot_index]",
                    name,
                    name,
                    None,
                    value,
                )
        elif name in choices and value not in choices[name]:
            listed = choices[name]
            short = len(listed) <= 20
            where = f"in {listed}" if short else f"in (list of length {len(listed)})"
            wrong(
                "value_not_in_list",
                "Value not in list",
                name,
                f"{name}: '{value}' not {where}",
                [listed, {}] if short else None,
                value,
            )
        elif name in LEAST and value < LEAST[name]:
            wrong(
                "value_smaller_than_min",
                f"Value {value} smaller than min of {LEAST[name]}",
                name,
                name,
                None,
                value,
            )
    return errors


def as_uuid(text):
    try:
        return uuid.UUID(str(text))
    except ValueError:
        return None


def ordered(prompt):
    """Each node after those that it needs."""
    done, out = set(), []

    def visit(node):
        if node in done:
            return
        done.add(node)
        for value in prompt[node].get("inputs", {}).values():
            if isinstance(value, list) and value and str(value[0]) in prompt:
                visit(str(value[0]))
        out.append(node)

    for node in prompt:
        visit(node)
    return out
