"""Which settings read handwritten digits best? A search with cross-validation, on the farm.

    python examples/digits.py [--json]      (needs a farm: `grange up`, or GRANGE_URL and GRANGE_TOKEN)

A linear classifier, trained by the passive-aggressive rule (Crammer et al., 2006), in plain Python without numpy.
Each task is one of 30 settings, judged by 5-fold cross-validation on the 1,797 digits of UCI's Optical Recognition
set. The same search runs in this process first, one setting after another; the two results must agree to the last
digit.
"""

import argparse
import gzip
import itertools
import json
import math
import pathlib
import random
import sys
import time
from operator import mul

import grange

DATA = pathlib.Path(__file__).resolve().parent / "data" / "digits.csv.gz"
FOLDS = 5
GRID = [
    {"epochs": epochs, "caution": caution, "power": power}
    for epochs, caution, power in itertools.product(
        (1, 2), (0.003, 0.01, 0.03, 0.1, 0.3), (0.75, 1.0, 1.5)
    )
]


def load():
    """[(64 pixels from 0 to 16, digit)], in the order of the file."""
    with gzip.open(DATA, "rt") as lines:
        rows = [[int(v) for v in line.split(",")] for line in lines]
    return [(row[:64], row[64]) for row in rows]


def score(weights, x):
    """The score of each digit: how well its row of weights fits the image."""
    return [sum(map(mul, row, x)) for row in weights]


def train(examples, epochs, caution):
    """One row of weights for each digit. An example that is not clear of its rival moves both rows, at most by
    `caution`."""
    weights = [[0.0] * 65 for _ in range(10)]
    order = random.Random(7)
    examples = [(x, digit, 2.0 * sum(map(mul, x, x))) for x, digit in examples]
    for _ in range(epochs):
        order.shuffle(examples)
        for x, digit, twice_squared in examples:
            scores = score(weights, x)
            margin = 1.0 - scores[digit]
            scores[digit] = -math.inf
            best = max(scores)
            loss = margin + best
            if loss > 0.0:
                rival = scores.index(best)
                step = min(caution, loss / twice_squared)
                weights[digit] = [w + step * v for w, v in zip(weights[digit], x)]
                weights[rival] = [w - step * v for w, v in zip(weights[rival], x)]
    return weights


def cross_validate(digits, epochs, caution, power):
    """The share of digits read right, in each fold."""
    points = [([(v / 16) ** power for v in pixels] + [1.0], digit) for pixels, digit in digits]
    shares = []
    for fold in range(FOLDS):
        test = points[fold::FOLDS]
        weights = train([p for i, p in enumerate(points) if i % FOLDS != fold], epochs, caution)
        right = 0
        for x, digit in test:
            scores = score(weights, x)
            right += scores.index(max(scores)) == digit
        shares.append(right / len(test))
    return shares


def main():
    parser = argparse.ArgumentParser(description="Hyper-parameter search on 1,797 handwritten digits.")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    as_json = parser.parse_args().json
    try:
        farm = grange.connect()
    except grange.ConnectionError as error:
        sys.exit(str(error))
    digits = load()

    # The function carries the digits with it: they travel once, with the code, and not with each of the settings.
    def judge(setting):
        return cross_validate(digits, **setting)

    start = time.perf_counter()
    serial = [judge(setting) for setting in GRID]
    serial_s = time.perf_counter() - start
    start = time.perf_counter()
    remote = farm.map(judge, GRID)
    farm_s = time.perf_counter() - start

    slots = farm.stats()["slots"]
    best = sorted(zip(GRID, remote), key=lambda pair: -sum(pair[1]))[:5]
    identical = serial == remote
    if as_json:
        print(
            json.dumps(
                {
                    "digits": len(digits),
                    "settings": len(GRID),
                    "folds": FOLDS,
                    "slots": slots,
                    "best": [{**setting, "accuracy": sum(shares) / FOLDS, "folds": shares} for setting, shares in best],
                    "serial_s": round(serial_s, 3),
                    "farm_s": round(farm_s, 3),
                    "speed_up": round(serial_s / farm_s, 2),
                    "identical": identical,
                }
            )
        )
    else:
        print(f"{len(digits)} digits, {len(GRID)} settings, {FOLDS}-fold cross-validation\n")
        print("accuracy  epochs  caution  power")
        for setting, shares in best:
            print(f"{sum(shares) / FOLDS:8.2%}  {setting['epochs']:6}  {setting['caution']:7}  {setting['power']:5}")
        print(f"\nserial     {serial_s:6.2f} s")
        print(f"farm       {farm_s:6.2f} s   ({slots} slots)")
        print(f"speed-up   {serial_s / farm_s:6.2f}")
        print(f"identical: {'yes' if identical else 'NO'}")
    sys.exit(not identical)


if __name__ == "__main__":
    main()
