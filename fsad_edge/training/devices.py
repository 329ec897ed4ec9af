"""The device and the threads that torch takes."""

from __future__ import annotations

import torch

from fsad_edge.errors import InputError
from fsad_edge.options import Device
from fsad_edge.runtime.cores import usable_cores


def limit_threads(threads: int) -> None:
    """Set the number of threads of torch in this process; 0 takes what the process may use."""
    torch.set_num_threads(threads or min(torch.get_num_threads(), usable_cores()))


def pick_device(device: Device) -> torch.device:
    """The device that torch trains on; ``auto`` takes the GPU where there is one.

    Raises:
        InputError: ``cuda`` is wanted and torch finds no GPU.
    """
    has_gpu = torch.cuda.is_available()
    if device == Device.CUDA and not has_gpu:
        raise InputError(
            "--device cuda needs a GPU and torch finds none: take --device cpu, or run  "
            "fsad-edge doctor."
        )
    return torch.device("cuda" if has_gpu and device != Device.CPU else "cpu")
