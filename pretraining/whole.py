"""Train what tells kinds of objects apart: a tail on the bundled encoder's map.

    A=local-dir:FOLDER_A     # networks in timm's layout with a classifier; any timm name will do
    python whole.py views --teacher $A $B --images PHOTOS --views VIEWS --passes 2
    python whole.py train --views VIEWS --epochs 12 --out edge_encoder_whole.safetensors

The bundled encoder ends at stride 16. The tail leads from its map to stride 32 and pools that. It
learns the direction of the teachers' centred logits (fsad_edge/training/full_depth.py), the mean
of their unit vectors. The encoder itself is not trained, so `views` computes its maps once.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pool import list_images
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from fsad_edge.training.edge_encoder import WholeEdgeEncoder
from fsad_edge.training.encoder import BUNDLED, Encoder, pretrained_encoder

SIZE = 128
"""Side of the images, pixels: the encoder's map is 8 by 8, and the tail's 4 by 4."""

SMALL = (32, 64)
"""Sides to which two of three passes reduce a crop first, as small photographs are, pixels."""

BATCH = 64

HELD_OUT = 20
"""Every so many-th photograph is not trained on; its mean cosine is printed."""


def crop(photograph: Image.Image, small: bool, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A square of a photograph at the network's size, uint8 [SIZE, SIZE, 3].

    Args:
        photograph: RGB.
        small: reduce it to a small photograph and enlarge that again.
        rng: source of the place, the sides and the mirroring.
    """
    width, height = photograph.size
    shortest = min(width, height)
    side = shortest * rng.uniform(0.7 if small else 0.5, 1)
    left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
    cut = photograph.crop((int(left), int(top), int(left + side), int(top + side)))
    resampling = Image.Resampling.BILINEAR
    if small:
        reduced = int(rng.integers(SMALL[0], SMALL[1] + 1))
        resampling = Image.Resampling.BICUBIC
        way = Image.Resampling.BOX if rng.random() < 0.5 else resampling
        cut = cut.resize((reduced, reduced), way)
    cut = cut.resize((SIZE, SIZE), resampling)
    if rng.random() < 0.5:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(cut)


@torch.inference_mode()
def make_views(args: argparse.Namespace) -> None:
    """The encoder's maps and the teachers' directions, a file a pass; files that are there stay."""
    args.views.mkdir(parents=True, exist_ok=True)
    files = list_images(args.images)
    encoder = pretrained_encoder(BUNDLED, None, SIZE, SIZE, [16]).eval()
    teachers = [
        pretrained_encoder(name, None, SIZE, SIZE, [16], full_depth=True).eval()
        for name in args.teacher
    ]
    (args.views / "views.json").write_text(json.dumps({"teachers": args.teacher}))
    for number in range(args.passes):
        file = args.views / f"pass{number}.npz"
        if file.exists():
            continue
        rng = np.random.default_rng(number)
        maps, directions = [], []
        for start in range(0, len(files), BATCH):
            crops = []
            for path in files[start : start + BATCH]:
                with Image.open(path) as photograph:
                    crops.append(crop(photograph.convert("RGB"), number % 3 > 0, rng))
            found = embedded(encoder, teachers, np.stack(crops))
            maps.append(found[0])
            directions.append(found[1])
        temporary = file.with_suffix(".part.npz")
        np.savez(temporary, maps=np.concatenate(maps), directions=np.concatenate(directions))
        temporary.replace(file)
        print(f"{file}: {len(files)} crops", flush=True)


def embedded(
    encoder: Encoder, teachers: list[Encoder], images: NDArray[np.uint8]
) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """The encoder's maps fp16 [N, C, h, w] and the teachers' unit vectors fp16 [N, teachers, E]."""
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    units = [functional.normalize(one.with_embedding(batch)[1], dim=1) for one in teachers]
    return encoder(batch).half().numpy(), torch.stack(units, dim=1).half().numpy()


class Tail(nn.Module):
    """The tail while it is trained: with batch norm, and a head for all classes."""

    def __init__(self, channels: int, widths: tuple[int, int], classes: int) -> None:
        super().__init__()
        middle, last = widths
        self.first = nn.Sequential(nn.Conv2d(channels, middle, 4, 2, 1), nn.BatchNorm2d(middle))
        self.second = nn.Sequential(nn.Conv2d(middle, last, 3, 1, 1), nn.BatchNorm2d(last))
        self.head = nn.Linear(last, classes, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Directions float [N, classes], not normalised, of maps float [N, C, h, w]."""
        deep = torch.relu(self.second(torch.relu(self.first(maps))))
        scores: Tensor = self.head(functional.dropout(deep.mean((2, 3)), 0.1, self.training))
        return scores


def train(args: argparse.Namespace) -> None:
    """Train a tail on all passes, and write it with the encoder."""
    torch.manual_seed(args.seed)
    passes = [np.load(file) for file in sorted(args.views.glob("pass*.npz"))]
    if not passes:
        raise SystemExit(f"there are no views in {args.views}: make them with  whole.py views")
    maps = torch.from_numpy(np.concatenate([one["maps"] for one in passes]))
    mean = np.concatenate([one["directions"].astype(np.float32).mean(axis=1) for one in passes])
    wanted = functional.normalize(torch.from_numpy(mean), dim=1)
    photographs = torch.cat([torch.arange(len(one["maps"])) for one in passes])
    held_out = photographs % HELD_OUT == 0
    used = torch.where(~held_out)[0]
    tail = Tail(maps.shape[1], WholeEdgeEncoder.WIDTHS, wanted.shape[1])
    optimizer = torch.optim.AdamW(tail.parameters(), weight_decay=0.05)
    steps = -(-len(used) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.rate, total_steps=args.epochs * steps
    )
    for epoch in range(args.epochs):
        tail.train()
        for chosen in used[torch.randperm(len(used))].tensor_split(steps):
            batch = maps[chosen].float()
            if torch.rand(()) < 0.5:
                batch = batch.flip(3)
            loss = 1 - functional.cosine_similarity(tail(batch), wanted[chosen]).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        tail.eval()
        with torch.inference_mode():
            alike = functional.cosine_similarity(tail(maps[held_out].float()), wanted[held_out])
        print(f"epoch {epoch + 1}: cosine {alike.mean():.4f} on held-out photographs", flush=True)
    recipe = json.loads((args.views / "views.json").read_text())
    recipe |= {"passes": len(passes), "epochs": args.epochs, "rate": args.rate}
    write(tail.eval(), args.out, recipe)


def write(tail: Tail, file: Path, recipe: dict[str, object]) -> None:
    """The encoder with a tail, batch norm folded, in fp16.

    The head's output is turned into as many channels as it has inputs: lengths and angles stay.
    """
    encoder = pretrained_encoder(BUNDLED, None, SIZE, SIZE, [16]).network
    whole = WholeEdgeEncoder()
    whole.layers.load_state_dict(encoder.model.layers.state_dict())  # type: ignore[union-attr]
    for place, (conv, norm) in zip((0, 2), (tail.first, tail.second), strict=True):
        whole.tail[place] = nn.utils.fuse_conv_bn_eval(conv, norm)  # type: ignore[arg-type]
    weight = tail.head.weight.detach()
    _, lengths, turned = torch.linalg.svd(weight - weight.mean(dim=0), full_matrices=False)
    with torch.no_grad():
        whole.head.weight.copy_(lengths[:, None] * turned)
    tensors = {name: value.half().contiguous() for name, value in whole.state_dict().items()}
    save_file(tensors, file, {"recipe": json.dumps(recipe), "license": "Apache-2.0"})
    print(f"{file}: {file.stat().st_size} bytes")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train a tail for whole objects.")
    commands = parser.add_subparsers(required=True)
    views = commands.add_parser("views", help="the encoder's maps and the teachers' directions")
    views.add_argument("--teacher", nargs="+", required=True, metavar="NETWORK")
    views.add_argument("--images", type=Path, nargs="+", required=True)
    views.add_argument("--views", type=Path, required=True)
    views.add_argument("--passes", type=int, default=2, help="crops of each photograph")
    views.set_defaults(call=make_views)
    run = commands.add_parser("train", help="train the tail and write it with the encoder")
    run.add_argument("--views", type=Path, required=True)
    run.add_argument("--epochs", type=int, default=12)
    run.add_argument("--rate", type=float, default=2e-3)
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--out", type=Path, required=True)
    run.set_defaults(call=train)
    args = parser.parse_args()
    args.call(args)


if __name__ == "__main__":
    main()
