"""Write a photograph at a model's size, by the very rule that the scores rest on.

python prepare.py part.onnx photo.jpg photo.ppm
"""

import sys

from PIL import Image

from fsad_edge import Model
from fsad_edge.errors import FsadEdgeError


def main() -> int:
    if len(sys.argv) != 4:
        print("usage: python prepare.py part.onnx photo.jpg photo.ppm", file=sys.stderr)
        return 2
    file, source, target = sys.argv[1:]
    try:
        with Model.load(file) as model:
            pixels = model.prepare(model.decode(source))
        Image.fromarray(pixels).save(target)
    except (FsadEdgeError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
