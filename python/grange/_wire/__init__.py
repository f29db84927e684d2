"""The Protobuf messages, generated from proto/grange/v1/wire.proto into this folder (see HACKING.md)."""

try:
    from grange._wire.grange.v1 import wire_pb2
except ImportError as _error:
    raise ImportError(
        "grange's wire messages are missing or do not load: run `./dev build`, or in the repository's root "
        "`protoc --proto_path=proto --python_out=python/grange/_wire grange/v1/wire.proto`"
    ) from _error

__all__ = ["wire_pb2"]
