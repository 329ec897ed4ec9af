"""Write the file of a bundled encoder: its graph for any size, with weights in half precision.

    python onnx_file.py fsad_edge_accurate encoder.safetensors

`encoder.safetensors` is what `distil.py export` or `whole.py train` wrote. The file is written
where the package looks for it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors import safe_open

from fsad_edge.graph.encoder_graph import trace
from fsad_edge.runtime.encoder_names import WHOLE_ENCODER
from fsad_edge.runtime.files import sha256
from fsad_edge.scoring.bundled import FILES
from fsad_edge.scoring.encoder_file import HALF, encoder_file
from fsad_edge.training.encoder import pretrained_encoder

#: An input that is traced, pixels: height and width differ, so that they cannot be mixed up.
HEIGHT, WIDTH = 128, 96


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write the file of a bundled encoder.")
    parser.add_argument("name", choices=sorted(FILES), help="timm's name of the encoder")
    parser.add_argument("weights", type=Path, help="a .safetensors file")
    args = parser.parse_args()
    encoder = pretrained_encoder(
        args.name, args.weights, HEIGHT, WIDTH, [16], full_depth=args.name == WHOLE_ENCODER
    )
    with safe_open(args.weights, "pt") as file:
        about = file.metadata() or {}
    data = encoder_file(trace(encoder, HEIGHT, WIDTH, any_size=True), HALF, about)
    FILES[args.name].write_bytes(data)
    print(f"{FILES[args.name]}: {len(data)} bytes; bundled.py names its SHA-256: {sha256(data)}")


if __name__ == "__main__":
    main()
