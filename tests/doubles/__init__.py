"""Doubles of the services that AI work is done with: their routes, their bytes and their traps.

    with OllamaDouble(models=["llama3.2:1b"], tokens=20, delay_s=0.01) as ollama:
        ... ollama.url ...
        ollama.once(error_after=3)            # the next request breaks after three tokens
        assert ollama.requests[-1].cancelled

Each runs on a thread of its own with a free loopback port. `python -m doubles ollama` runs one by itself.
"""

from .base import DeadSocket, Double, Seen, text
from .comfyui_double import ComfyUIDouble
from .file_double import FileDouble
from .llamacpp_double import LlamaCppDouble
from .ollama_double import OllamaDouble
from .openai_double import OpenAIDouble
from .replicate_double import ReplicateDouble
from .runpod_double import RunPodDouble

__all__ = [
    "ComfyUIDouble",
    "DeadSocket",
    "Double",
    "FileDouble",
    "LlamaCppDouble",
    "OllamaDouble",
    "OpenAIDouble",
    "ReplicateDouble",
    "RunPodDouble",
    "Seen",
    "text",
]
