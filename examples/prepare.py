"""Write a photograph at a model's size, resized by the rule that its scores are computed with.

python prepare.py part.onnx photo.jpg photo.ppm
"""

import sys

from PIL import Image

from fsad_edge import FsadEdgeError, Model


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
