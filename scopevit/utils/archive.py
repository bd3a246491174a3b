"""Files with weights, before and after they are read: whether they are whole, and no larger than they look."""

import functools
import hashlib
import json
import os
import re
import sys
import zipfile

import torch
from torch import Tensor

MOST_VALUES = 2 * 10**6
"""Numbers, texts and containers besides tensors; a checkpoint of a long training has some ten thousand."""
DEEPEST = 100
LARGEST_VIEW = 2**26
"""Bytes that a tensor may stand for without having them."""
_HASH = re.compile(r'-(?!20\d{6})([0-9a-f]{8})\.(?:pth|pt|safetensors)$')  # no date


class Damaged(ValueError):
    """A file is not what it was, or pretends to be what it is not; the message says how."""


def verify(path: str, name: str) -> None:
    """Compare a file with the checksums that it carries, which torch does not do.

    A published name holds the beginning of the file's SHA-256, OpenMMLab's and PyTorch's as well. Where it does not
    fit, a line on the screen says so, once for each name: some tools hash something else. Of files that carry no
    checksum, safetensors and torch's format before 1.6, it is all that tells of damage.

    Args:
        path: The file.
        name: The name that it was published under.

    Raises:
        Damaged: If its content does not fit the checksums inside, or that of its name if there are none, or it is
            compressed, so that it could fill the memory when it is read.
    """
    has_checksums = zipfile.is_zipfile(path)
    stated = _HASH.search(os.path.basename(name))
    if stated:
        digest = hashlib.sha256()
        with open(path, 'rb') as file:
            for part in iter(lambda: file.read(2**20), b''):
                digest.update(part)
        if not digest.hexdigest().startswith(stated[1]):
            unlike = f'its SHA-256 begins with {digest.hexdigest()[:8]}, not with {stated[1]} as its name says'
            if not has_checksums:
                raise Damaged(f'{unlike}: it was changed (or renamed; then take these eight characters out)')
            _warn_once(f'{name}: {unlike}: it was changed, or named by a tool that hashes something else')
    if not has_checksums:
        return
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise Damaged('it is compressed, which no file of PyTorch is')
        damaged = archive.testzip()
    if damaged is not None:
        raise Damaged(f'the checksum of its part {damaged} is wrong: it is damaged')


@functools.cache  # a file may be read several times
def _warn_once(text: str) -> None:
    """Tell it on the screen, also where tools keep warnings to themselves, by the first of several processes."""
    if os.environ.get('RANK', '0') == '0':
        print(f'warning: {text}', file=sys.stderr)


def require_bounded(content: object) -> None:
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
            size = value.numel() * value.element_size() if value.layout is torch.strided else 0
            if size > LARGEST_VIEW and size > value.untyped_storage().nbytes():
                raise Damaged(f'a tensor of shape {tuple(value.shape)} stands for less than that')
        elif isinstance(value, dict):
            left += [(item, depth + 1) for pair in value.items() for item in pair]
        elif isinstance(value, (list, tuple, set)):
            left += [(item, depth + 1) for item in value]


def read_safetensors(path: str) -> dict:
    """Weights of a safetensors file, and the ``meta`` that :func:`to_safetensors` stored.

    Raises:
        ImportError: If the package is not installed.
    """
    from safetensors import safe_open

    with safe_open(path, 'pt') as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dict
        meta = (file.metadata() or {}).get('scopevit')
    return dict(state_dict=weights, meta=json.loads(meta) if meta else {})


def to_safetensors(checkpoint: dict) -> bytes:
    """A safetensors file of a checkpoint's ``state_dict`` and, as JSON, its ``meta``.

    Raises:
        ImportError: If the package is not installed.
    """
    from safetensors.torch import save

    weights = {key: value.contiguous() for key, value in checkpoint['state_dict'].items()}
    return save(weights, dict(format='pt', scopevit=json.dumps(checkpoint.get('meta') or {})))


def is_plain(weight: Tensor) -> bool:
    """Whether a tensor's values can be used as they are."""
    return weight.layout is torch.strided and not weight.is_quantized and not weight.is_meta


def not_finite(weights: dict[str, Tensor]) -> list[str]:
    """Names of the weights that hold infinite values or none."""
    return [
        name
        for name, value in weights.items()
        if (value.is_floating_point() or value.is_complex()) and not torch.isfinite(value).all()
    ]
