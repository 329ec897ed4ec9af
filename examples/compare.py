"""Compare the scores that an example prints with Python's; they are read from standard input.

node javascript/score.mjs part.onnx photos/*.jpg --resize | python compare.py part.onnx
"""

import statistics
import sys

from fsad_edge import FsadEdgeError, Model


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: ... | python compare.py part.onnx", file=sys.stderr)
        return 2
    differences: list[float] = []
    decisions = 0
    try:
        with Model.load(sys.argv[1]) as model:
            print("   example     python  % of threshold  image")
            for line in sys.stdin:
                path, score, _, decision = line.rstrip("\n").rsplit("  ", 3)
                theirs, ours = float(score.removeprefix("score ")), model.score(path)
                differences.append(100 * (theirs - ours.score) / ours.threshold)
                decisions += decision != ours.decision
                print(f"{theirs:.8f} {ours.score:.8f} {differences[-1]:+15.5f}  {path}")
    except (FsadEdgeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not differences:
        print("error: standard input holds no scores.", file=sys.stderr)
        return 2
    sizes = sorted(map(abs, differences))
    print(
        f"{len(sizes)} images: the scores differ by {statistics.median_high(sizes):.5f} % of the "
        f"threshold (median) and {sizes[-1]:.5f} % at most; {decisions} decisions differ."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
