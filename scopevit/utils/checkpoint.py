"""Reading checkpoints safely, and matching their weights to a model.

Safe means that torch unpickles tensors and plain data only: a checkpoint from anywhere can
run no code of its own. MMEngine's checkpoints hold a few harmless classes besides; importing
this module allows those (torch >= 2.6 refuses MMEngine's own files otherwise).
"""

import argparse
import importlib
import io
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from mmengine.fileio import get_file_backend, get_local_path
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn

from .archive import Damaged, is_plain, not_finite, read_safetensors, require_bounded, to_safetensors, verify
from .errors import UserError, one_line
from .files import require_new_file, write_whole
from .wrappers import unwrap

StateDict = dict[str, Tensor]
ALLOW_NON_FINITE = 'SCOPEVIT_ALLOW_NON_FINITE'
# Where weights lie in a checkpoint, if not at its top: what timm and others average, and the usual ones.
_AVERAGED, _USUAL = ('state_dict_ema', 'model_ema'), ('state_dict', 'model')
# Facts worth keeping; the training config and logs, which hold paths of a machine, are not.
_KEPT_META = ('epoch', 'iter', 'seed', 'mmengine_version', 'dataset_meta', 'arch', 'averaged')


class CheckpointError(UserError):
    """A checkpoint is missing, unreadable, unsafe, or does not fit the model."""


# How torch words that an object was refused, with the object's name.
_REFUSED = re.compile(r'(?:nsupported (?:global: GLOBAL|GLOBAL|class|attribute)|unrecognized function) ([\w.]+)')


def _history_buffer_method(owner: object, name: str) -> object:
    """The only attribute access that a checkpoint may ask for."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'Unsupported attribute {name} of {owner}')
    return getattr(HistoryBuffer, name)


def allow_mmengine_checkpoints() -> None:
    """Let safe loading read what MMEngine and timm store besides tensors: logs and plain options."""
    multiarray = importlib.import_module('numpy._core.multiarray' if hasattr(np, '_core') else 'numpy.core.multiarray')
    allowed = [HistoryBuffer, np.ndarray, np.dtype, argparse.Namespace]
    # Files written under numpy 1 and numpy 2 name the same functions differently.
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed += [(getattr(multiarray, name), f'{module}.{name}') for name in ('_reconstruct', 'scalar')]
    # HistoryBuffer stores references to its own methods, which pickle writes as getattr calls.
    allowed.append((_history_buffer_method, 'builtins.getattr'))
    allowed += list({type(np.dtype(code)) for code in np.typecodes['AllInteger'] + np.typecodes['Float'] + '?US'})
    torch.serialization.add_safe_globals(allowed)


allow_mmengine_checkpoints()


def read_checkpoint(path: str) -> dict:
    """Load a checkpoint to the CPU, running none of its code.

    Args:
        path: A file, or any address that MMEngine's file backends read.

    Raises:
        CheckpointError: If it is missing, truncated, not a checkpoint, or holds objects other
            than tensors and plain data.
    """
    allow_mmengine_checkpoints()  # again: torch's safe_globals() around another's load takes away what was there before
    path = str(path)
    if os.path.isdir(path):
        raise CheckpointError(f'checkpoint {path} is a folder; name a file in it')
    if '://' not in path and not os.path.isfile(path):
        raise CheckpointError(f'checkpoint {path} does not exist; check the path')
    _require_backend(path)
    try:
        with get_local_path(path) as local:
            verify(local, path)
            if path.endswith('.safetensors'):
                checkpoint = read_safetensors(local)
            else:
                checkpoint = torch.load(local, map_location='cpu', weights_only=True)
        require_bounded(checkpoint)
    except Damaged as error:
        raise CheckpointError(f'checkpoint {path} is refused: {error}') from error
    except ImportError as error:
        raise CheckpointError(f'checkpoint {path} needs the package safetensors: pip install safetensors') from error
    except Exception as error:  # a damaged file can end in nearly any exception
        refused = _REFUSED.search(str(error))
        if refused:
            raise CheckpointError(
                f'checkpoint {path} holds Python objects other than tensors and plain data ({refused.group(1)}). '
                'Loading them could run code, so it was refused and nothing was executed. If you trust its origin, '
                'load it where it was written and save its state_dict alone'
            ) from error
        if isinstance(error, (OSError, MemoryError)) and ('://' in path or _reason(error)):
            how = 'fetched' if '://' in path else 'read'
            raise CheckpointError(f'checkpoint {path} cannot be {how}{_reason(error)}') from error
        raise CheckpointError(
            f'checkpoint {path} is truncated or not a PyTorch file; use another one{_reason(error)}'
        ) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f'checkpoint {path} holds a {type(checkpoint).__name__}, not a dict of weights')
    return checkpoint


def _require_backend(path: str) -> None:
    """Make sure that MMEngine reads addresses of a kind, and has the package that it needs for that."""
    try:
        get_file_backend(path)
    except (KeyError, ValueError) as error:  # the kind is unknown, or there are two in one address
        raise CheckpointError(
            f'checkpoint {path} cannot be fetched: MMEngine reads no such address; download it and name the file'
        ) from error
    except ImportError as error:
        raise CheckpointError(f'checkpoint {path} cannot be fetched{_reason(error)}') from error


def _reason(error: Exception) -> str:
    """Why a file cannot be read, where an error has words for it: ``KeyError: 97`` is how unpickling stumbles."""
    if isinstance(error, MemoryError):
        return ' (it does not fit into memory)'
    if isinstance(error, OSError) and error.strerror:
        return f' ({error.strerror})'
    if isinstance(error, (OSError, RuntimeError, ImportError)) or type(error).__name__ == 'SafetensorError':
        return f' ({one_line(error)})'
    return ''


def save_checkpoint(checkpoint: dict, path: str) -> None:
    """Write a checkpoint all or nothing; an existing file is never replaced.

    Raises:
        UserError: If the file exists or its folder cannot be written.
    """
    path = os.path.abspath(path)
    require_new_file(path)
    write_whole(path, to_bytes(checkpoint, path))


def to_bytes(checkpoint: dict, name: str) -> bytes:
    """The content of a checkpoint's file, in the format that its name says: ``.safetensors``, else torch's.

    Raises:
        CheckpointError: If the package for that format is missing.
    """
    if name.endswith('.safetensors'):
        try:
            return to_safetensors(checkpoint)
        except ImportError as error:
            raise CheckpointError(f'{name} needs the package safetensors: pip install safetensors') from error
    content = io.BytesIO()  # given a path, torch would write its random name into the file
    torch.save(checkpoint, content)
    return content.getvalue()


def get_state_dict(checkpoint: dict, path: str) -> StateDict:
    """The weights of a checkpoint, nested under a usual key or not at all; the averaged ones where there are any.

    Whatever loads weights takes these, with the versions of layers (``_metadata``) that PyTorch keeps beside them.

    Raises:
        CheckpointError: If no weights are found.
    """
    checkpoint = _nested(checkpoint, (*_AVERAGED, *_USUAL)) or checkpoint
    weights = {key: value for key, value in checkpoint.items() if isinstance(value, Tensor)}
    if not weights:
        found = ', '.join(map(str, list(checkpoint)[:8])) or 'nothing'
        raise CheckpointError(f'checkpoint {path} holds no weights; it has: {found}')
    odd = [str(key) for key, value in weights.items() if not (isinstance(key, str) and is_plain(value))]
    if odd:
        raise CheckpointError(
            f'checkpoint {path} holds weights without names, sparse, quantized or without content ({", ".join(odd[:3])}'
            f'; {len(odd)} of {len(weights)}): save those of a model as it is trained'
        )
    broken = not_finite(weights)
    if broken and os.environ.get(ALLOW_NON_FINITE) != '1':
        raise CheckpointError(
            f'checkpoint {path} holds weights that are no finite numbers ({", ".join(broken[:3])}; {len(broken)} of '
            f'{len(weights)}): its training has diverged. With {ALLOW_NON_FINITE}=1 in the environment it is loaded '
            'all the same'
        )
    named = OrderedDict((key.removeprefix('module.'), value) for key, value in weights.items())
    versions = getattr(checkpoint, '_metadata', None)
    named._metadata = versions if isinstance(versions, dict) else {}  # type: ignore[attr-defined]
    return named


def _nested(checkpoint: dict, keys: Sequence[str]) -> dict | None:
    """What a checkpoint has under the first of some keys that holds weights."""
    found = (checkpoint[key] for key in keys if isinstance(checkpoint.get(key), dict))
    return next((nested for nested in found if any(isinstance(value, Tensor) for value in nested.values())), None)


def get_meta(checkpoint: dict) -> dict:
    """What a checkpoint says of its training; empty if it says nothing."""
    meta = checkpoint.get('meta')
    return meta if isinstance(meta, dict) else {}


def slim_meta(checkpoint: dict) -> dict:
    """Of what a checkpoint says of its training, the plain facts that name no place of a machine."""
    meta = get_meta(checkpoint)
    return {key: to_plain(meta[key]) for key in _KEPT_META if key in meta}


def select_weights(checkpoint: dict, kind: str, path: str) -> StateDict:
    """The averaged or the raw weights of a checkpoint.

    Where MMEngine's EMAHook was used, ``state_dict`` holds the averaged weights and
    ``ema_state_dict`` the raw ones. In timm's files ``state_dict_ema`` holds the averaged
    weights and ``state_dict`` the raw ones.

    Args:
        kind: 'ema', 'raw', or 'auto' for those of :func:`get_state_dict`: the averaged ones
            where there are any.

    Raises:
        CheckpointError: If there are no such weights.
    """
    weights = get_state_dict(checkpoint, path)
    is_averaged = _nested(checkpoint, ('ema_state_dict', *_AVERAGED)) is not None
    if kind == 'ema' and not is_averaged:
        raise CheckpointError(f'checkpoint {path} has no averaged weights: it was trained without averaging')
    if kind != 'raw' or not is_averaged:
        return weights
    swapped = _nested(checkpoint, ('ema_state_dict',))
    beside = swapped or _nested(checkpoint, _USUAL)
    if beside is None:
        raise CheckpointError(f'checkpoint {path} has averaged weights alone')
    raw = get_state_dict(dict(state_dict=beside), path)
    # Buffers that EMAHook did not swap are among the averaged ones alone.
    return {key: raw.get(key, value) for key, value in weights.items()} if swapped else raw


@dataclass
class Match:
    """How the weights of a checkpoint fit a model."""

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return self.describe(most=5)

    def describe(self, most: int | None = None) -> str:
        """Counts, and the keys that do not match: all of them or the first ones of each kind."""
        lines = [
            f'{len(self.matched)} matched, {len(self.missing)} missing, {len(self.unexpected)} unexpected, '
            f'{len(self.misshapen)} of another shape'
        ]
        for title, keys in (
            ('missing', self.missing),
            ('unexpected', self.unexpected),
            ('of another shape', self.misshapen),
        ):
            if keys:
                more = f' and {len(keys) - most} more' if most and len(keys) > most else ''
                lines.append(f'  {title}: {", ".join(keys[:most])}{more}')
        return '\n'.join(lines)


def compare_weights(target: StateDict, weights: StateDict) -> Match:
    """Compare the names and shapes of weights with those that are wanted."""
    match = Match()
    for key, value in target.items():
        if key not in weights:
            # Counters of batches came with later PyTorch versions; nothing depends on them.
            if not key.endswith('num_batches_tracked'):
                match.missing.append(key)
        elif weights[key].shape != value.shape:
            match.misshapen.append(f'{key} {tuple(weights[key].shape)} for {tuple(value.shape)}')
        elif weights[key].is_complex() and not value.is_complex():
            match.misshapen.append(f'{key} of complex numbers')
        else:
            match.matched.append(key)
    match.unexpected = [key for key in weights if key not in target]
    return match


def require_fit(model: nn.Module, path: str, checkpoint: dict | None = None) -> None:
    """Make sure that a checkpoint is of this model, before testing or resuming with it.

    It loads the weights as MMEngine will, so that what a model does to weights of older
    versions or other image sizes counts as fitting. MMEngine alone would go on with random
    values for what is missing. If it raises, the model may be partly changed.

    Args:
        checkpoint: Its content, if it has been read.

    Raises:
        CheckpointError: If it cannot be read, a weight is missing or of another shape, or
            there are weights for more layers than the model has.
    """
    model = unwrap(model)
    weights = get_state_dict(checkpoint or read_checkpoint(path), path)
    match, target = Match(), model.state_dict()
    try:
        if any(value.is_complex() and not target.get(key, value).is_complex() for key, value in weights.items()):
            raise RuntimeError  # torch would leave out what is imaginary
        missing, match.unexpected = model.load_state_dict(weights, strict=False)
        match.missing = [key for key in missing if not key.endswith('num_batches_tracked')]
        match.matched = [key for key in weights if key not in match.unexpected]
    except RuntimeError:  # another shape or kind
        match = compare_weights(target, weights)
    deeper = [key for key in match.unexpected if _is_of_a_further_layer(model, key)]
    if match.missing or match.misshapen or deeper:
        raise CheckpointError(
            f'checkpoint {path} is of another model than the config describes (another arch or number of '
            f'classes?): {match}'
        )


def _is_of_a_further_layer(model: nn.Module, key: str) -> bool:
    """Whether an unexpected weight belongs to an index past the end of one of the model's lists of layers."""
    names = key.split('.')
    for name in names:
        if not hasattr(model, name):
            return name.isdigit() and isinstance(model, (nn.ModuleList, nn.Sequential))
        model = getattr(model, name)
    return False


def require_backbone_match(model: nn.Module, path: str) -> None:
    """Make sure that a config's ``load_from`` brings weights for the backbone, if it may not for the head.

    Raises:
        CheckpointError: If no weight of the backbone is in the checkpoint.
    """
    model = unwrap(model)
    match = compare_weights(model.state_dict(), get_state_dict(read_checkpoint(path), path))
    if hasattr(model, 'backbone') and not any(key.startswith('backbone.') for key in match.matched):
        raise CheckpointError(
            f'load_from {path} matches nothing of the backbone {type(model.backbone).__name__}: {match}'
        )


def load_backbone(backbone: nn.Module, path: str, prefix: str = 'backbone.') -> Match:
    """Load the backbone's weights from a checkpoint of any task, or of the backbone alone.

    Whole parts that this backbone was built without (later stages, a classifier) may be left
    over in the checkpoint; everything else has to match.

    Args:
        backbone: The backbone itself, not the model around it.
        path: Checkpoint.
        prefix: What the backbone's weights begin with in a checkpoint of a whole model.

    Returns:
        What matched and what was left over.

    Raises:
        CheckpointError: If the checkpoint cannot be read or is of another backbone.
    """
    weights = get_state_dict(read_checkpoint(path), path)
    prefix = prefix.rstrip('.') + '.'
    if any(key.startswith(prefix) for key in weights):
        weights = {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}
    match = compare_weights(backbone.state_dict(), weights)
    parts = {_part(key) for key in backbone.state_dict()}
    refused = [key for key in match.unexpected if _part(key) in parts]
    if not match.matched or match.missing or match.misshapen or refused:
        raise CheckpointError(
            f'checkpoint {path} does not fit the backbone {type(backbone).__name__} of this config (another '
            f'arch?): {match}'
        )
    backbone.load_state_dict({key: weights[key] for key in match.matched}, strict=False)
    return match


def _part(key: str) -> str:
    """The part of a model that a weight belongs to: ``stages.3`` of ``stages.3.norm.weight``."""
    first, *rest = key.split('.')
    return f'{first}.{rest[0]}' if rest and rest[0].isdigit() else first


def to_plain(value: object) -> dict | list | str | int | float | bool | None:
    """Copy nested data into types that need no pickling: dict, list, str, numbers, None."""
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [to_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic, Tensor)):
        return value.tolist()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
