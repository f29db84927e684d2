"""python -m doubles KIND [--port N] [--model M]… [--tokens N] [--delay S]: one double, until it is stopped."""

import argparse
import signal

import doubles

KINDS = {
    d.kind: d
    for d in vars(doubles).values()
    if isinstance(d, type) and issubclass(d, doubles.Double) and d.kind and d.kind != "files"
}

parser = argparse.ArgumentParser(prog="doubles", description=__doc__)
parser.add_argument("kind", choices=sorted(KINDS))
parser.add_argument("--port", type=int, default=0)
parser.add_argument("--model", action="append")
parser.add_argument("--tokens", type=int, default=20)
parser.add_argument("--delay", type=float, default=0.05)
given = parser.parse_args()
models = {"models": given.model} if given.model else {}
signal.signal(signal.SIGTERM, signal.default_int_handler)
with KINDS[given.kind](port=given.port, tokens=given.tokens, delay_s=given.delay, **models) as double:
    print(double.url, flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass
