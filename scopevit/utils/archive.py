"""Files with weights, before and after they are read: whether they are whole, and no larger than they look."""

import hashlib
import json
import os
import re
import zipfile

import torch
from torch import Tensor

MOST_VALUES = 10**7
"""Numbers, texts and containers besides tensors; a checkpoint of a long training has some ten thousand."""
DEEPEST = 100
_HASH = re.compile(r'-([0-9a-f]{8})\.(?:pth|pt|safetensors)$')


class Damaged(ValueError):
    """A file is not what it was, or pretends to be what it is not; the message says how."""


def verify(path: str, name: str) -> None:
    """Compare a file with the checksums that it carries, which torch does not do.

    Args:
        path: The file.
        name: The name that it was published under, which may hold the beginning of its SHA-256, as OpenMMLab's and
            PyTorch's do.

    Raises:
        Damaged: If it differs from one of them, or is compressed, so that it could fill the memory when it is read.
    """
    stated = _HASH.search(os.path.basename(name))
    if stated:
        with open(path, 'rb') as file:
            digest = hashlib.file_digest(file, 'sha256').hexdigest() if hasattr(hashlib, 'file_digest') else None
            digest = digest or hashlib.sha256(file.read()).hexdigest()
        if not digest.startswith(stated[1]):
            raise Damaged(
                f'its name says that its SHA-256 begins with {stated[1]}, but it begins with {digest[:8]}: it is '
                'damaged or was changed; fetch it again, or rename it to use it all the same'
            )
    if not zipfile.is_zipfile(path):  # torch's older format has no checksums
        return
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise Damaged('it is compressed, which no file of PyTorch is')
        damaged = archive.testzip()
    if damaged is not None:
        raise Damaged(f'the checksum of its part {damaged} is wrong: it is damaged')


def check_extent(content: object) -> None:
    """Make sure that what was read can be walked through: a few references can stand for very much.

    Raises:
        Damaged: If it is nested too deeply, holds too many values, or a tensor has more values than memory.
    """
    left, count = [(content, 0)], 0
    while left:
        value, depth = left.pop()
        count += 1
        if count > MOST_VALUES or depth > DEEPEST:
            raise Damaged('it holds values nested too deeply or too many of them')
        if isinstance(value, Tensor):
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise Damaged(f'a tensor of shape {tuple(value.shape)} stands for less than that')
        elif isinstance(value, dict):
            left += [(item, depth + 1) for pair in value.items() for item in pair]
        elif isinstance(value, (list, tuple, set)):
            left += [(item, depth + 1) for item in value]


def read_safetensors(path: str) -> dict:
    """Weights of a safetensors file, and the ``meta`` that :func:`write_safetensors` stored.

    Raises:
        ImportError: If the package is not installed.
    """
    from safetensors import safe_open

    with safe_open(path, 'pt') as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dict
        meta = (file.metadata() or {}).get('scopevit')
    return dict(state_dict=weights, meta=json.loads(meta) if meta else {})


def write_safetensors(checkpoint: dict, path: str) -> None:
    """Write a checkpoint's ``state_dict``, and its ``meta`` as JSON, as a safetensors file.

    Raises:
        ImportError: If the package is not installed.
    """
    from safetensors.torch import save_file

    weights = {key: value.contiguous() for key, value in checkpoint['state_dict'].items()}
    save_file(weights, path, dict(format='pt', scopevit=json.dumps(checkpoint.get('meta') or {})))


def not_finite(weights: dict[str, Tensor]) -> list[str]:
    """Names of the weights that hold infinite values or none."""
    return [
        name
        for name, value in weights.items()
        if (value.is_floating_point() or value.is_complex()) and not torch.isfinite(value).all()
    ]
