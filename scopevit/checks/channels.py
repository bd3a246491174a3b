"""Whether necks and heads take the channels of the maps that they get."""

import copy
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..apis.model import backbone_of
from ..utils.errors import UserError
from ..utils.randomness import random_state_kept
from ..utils.wrappers import unwrap
from .findings import Finding, log_unchecked


def check_channels(model: nn.Module) -> Iterator[Finding]:
    """Necks and heads take the channels of the maps that they get; of several faults, the first neck's or the heads'.

    A copy of the model that has shapes but no data (torch's meta device) is run on a made-up
    image. A part is at fault if it cannot be run and its ``in_channels`` are not those of its input.

    Args:
        model: A model of any toolbox, maybe wrapped for several processes.
    """
    model = unwrap(model)
    try:
        holder = backbone_of(model)[0].rpartition('.')[0]
    except UserError:
        return
    model = model.get_submodule(holder)
    if not hasattr(model, 'extract_feat'):
        return
    with random_state_kept(), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')
        try:
            found = list(_try_model(without_data(model).eval()))
        except Exception as error:  # a model that cannot be copied, or is put together in a way of its own
            log_unchecked('channels', error)
            return
    for finding in found:
        if holder:
            yield Finding('error', *(text.replace('model.', 'model.detector.') for text in (finding.key, finding.text)))
        else:
            yield finding


def _try_model(model: nn.Module) -> Iterator[Finding]:
    (maps, at_fault), (others, _) = (_run_extractor(model, size) for size in ((256, 256), (288, 224)))
    if at_fault is not None:
        yield at_fault
    # Necks may also flatten maps: then the number of channels says something about the size of the images.
    if not maps or not others or [x.shape[1] for x in maps] != [x.shape[1] for x in others]:
        return
    giver = _described(model, 'neck' if _has(model, 'neck') else 'backbone')
    found = (_try_part(name, head, maps, giver) for name, head in _heads_on_maps(model))
    yield from (finding for finding in found if finding is not None)
    yield from _check_regions(model, maps, giver)


def without_data(model: nn.Module) -> nn.Module:
    """A copy of a model on torch's meta device: shapes without numbers."""
    memo = {id(buffer): torch.empty_like(buffer, device='meta') for buffer in model.buffers()}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device='meta'), parameter.requires_grad)
    return copy.deepcopy(model, memo)


def _has(model: nn.Module, name: str) -> bool:
    return isinstance(getattr(model, name, None), nn.Module)


def _described(model: nn.Module, name: str) -> str:
    return f'the {name} {type(getattr(model, name)).__name__}'


def _run_extractor(model: nn.Module, size: tuple[int, int]) -> tuple[list[Tensor] | None, Finding | None]:
    """The maps that backbone and neck make of an image, None if that cannot be told; and the neck's fault, if any."""
    given: dict[str, Sequence[Tensor]] = {}
    if _has(model, 'neck'):
        model.neck.register_forward_pre_hook(lambda module, inputs: given.update(neck=inputs[0]))
    first = next(module for module in model.backbone.modules() if isinstance(module, nn.Conv2d))
    try:
        return _as_maps(model.extract_feat(torch.empty(2, first.in_channels, *size, device='meta'))), None
    except Exception as error:  # a part that the meta device does not know, or a mismatch: the neck is tried alone
        log_unchecked('backbone and neck together', error)
        maps = _as_maps(given.get('neck'))
        return None, _try_part('neck', model.neck, maps, _described(model, 'backbone')) if maps else None


def _as_maps(output: object) -> list[Tensor] | None:
    output = [output] if isinstance(output, Tensor) else output
    if isinstance(output, (list, tuple)) and output and all(isinstance(x, Tensor) and x.ndim > 1 for x in output):
        return list(output)
    return None


def _heads_on_maps(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Heads that are called with all maps, and their names."""
    for name in ('head', 'decode_head', 'auxiliary_head', 'rpn_head', 'bbox_head'):
        head = getattr(model, name, None)
        if isinstance(head, nn.ModuleList):
            # Of a cascade of segmentation heads the first alone is.
            heads = list(head)[:1] if name == 'decode_head' else head
            yield from ((f'{name}[{i}]', part) for i, part in enumerate(heads))
        elif isinstance(head, nn.Module):
            yield name, head


def _try_part(name: str, part: nn.Module, maps: Sequence[Tensor], giver: str) -> Finding | None:
    """Run a neck or head on maps; if it fails and its settings do not fit them, that is its fault."""
    mismatches = []

    def compare(layer: nn.Module, inputs: tuple) -> None:
        if inputs and isinstance(inputs[0], Tensor) and _channels_wanted(layer) not in (None, _channels(layer, inputs)):
            mismatches.append(layer)
            raise RuntimeError  # the meta device does not always do so

    for layer in part.modules():
        layer.register_forward_pre_hook(compare)
    try:
        part(tuple(maps))
    except Exception as error:
        stated = _stated_channels(part)
        if stated is None:
            return None
        got = [x.shape[1] for x in maps]
        fitting, counts_differ = _fitting_channels(part, stated, got)
        is_mismatch = mismatches or (counts_differ and isinstance(error, (AssertionError, IndexError)))
        if is_mismatch and stated != fitting:
            return _mismatch(name, part, stated, fitting, got, giver)
    return None


def _channels_wanted(layer: nn.Module) -> int | None:
    if not type(layer).__module__.startswith(('torch.nn', 'mmcv.cnn')):  # others may take what they get
        return None
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        return layer.in_channels
    if isinstance(layer, nn.Linear):
        return layer.in_features
    return None


def _channels(layer: nn.Module, inputs: tuple) -> int:
    return inputs[0].shape[-1] if isinstance(layer, nn.Linear) else inputs[0].shape[1]


def _stated_channels(part: nn.Module) -> int | list[int] | None:
    """A part's ``in_channels``; of a sequence of parts, the first one's."""
    while isinstance(part, nn.Sequential) and len(part):
        part = part[0]
    stated = getattr(part, 'in_channels', None)
    return list(stated) if isinstance(stated, (list, tuple)) else stated if isinstance(stated, int) else None


def _fitting_channels(part: nn.Module, stated: int | list[int], got: list[int]) -> tuple[int | list[int] | None, bool]:
    """What ``in_channels`` would have to be, None if that is open; and whether there are too few or many maps."""
    index = getattr(part, 'in_index', None)
    indices = index if isinstance(index, (list, tuple)) else [index]
    if index is not None and all(isinstance(i, int) for i in indices):
        if not all(-len(got) <= i < len(got) for i in indices):
            return None, True
        picked = [got[i] for i in indices]
        if isinstance(index, int):
            return picked[0], False
        return (sum(picked), False) if isinstance(stated, int) else (picked, len(stated) != len(picked))
    if isinstance(stated, list):
        return got, len(stated) != len(got)
    if stated in got or stated == sum(got):
        return stated, False
    return (got[0] if len(set(got)) == 1 else None), False


def _mismatch(
    name: str,
    part: nn.Module,
    stated: int | list[int],
    fitting: int | list[int] | None,
    got: list[int],
    giver: str,
) -> Finding:
    key = f'model.{name}.in_channels'
    maps = f'{len(got)} maps of {got}' if len(got) > 1 else got[0]
    where = ' (its feature_channels)' if 'ScopeViT' in giver else ''
    if fitting is not None:
        remedy = f'set {key}={fitting}'
    elif getattr(part, 'in_index', None) is not None:
        remedy = f'set model.{name}.in_index, now {part.in_index}, to maps that there are (0 is the first)'
    else:
        remedy = 'set it to the channels of the map that it takes'
    return Finding('error', key, f'{key} is {stated}, but {giver} outputs {maps} channels{where}: {remedy}')


def _check_regions(model: nn.Module, maps: Sequence[Tensor], giver: str) -> Iterator[Finding]:
    """Second stages of detectors: an extractor cuts regions out of the maps, for heads on boxes and masks."""
    regions = getattr(model, 'roi_head', None)
    if not isinstance(regions, nn.Module) or getattr(regions, 'with_shared_head', True):
        return
    for kind in ('bbox', 'mask'):
        extractors, heads = (_as_list(getattr(regions, f'{kind}_{part}', None)) for part in ('roi_extractor', 'head'))
        for i, (extractor, head) in enumerate(zip(extractors, heads)):
            many = f'[{i}]' if len(heads) > 1 else ''
            channels = getattr(extractor, 'out_channels', None)
            if type(extractor).__name__ != 'SingleRoIExtractor' or channels is None:
                return
            used = {x.shape[1] for x in maps[: extractor.num_inputs]}
            if extractor.num_inputs > 1 and used != {channels}:
                key = f'model.roi_head.{kind}_roi_extractor{many}.out_channels'
                text = f'{key} is {channels}, but {giver} outputs maps of {sorted(used)} channels: set it to those'
                yield Finding('error', key, text)
                continue
            size = extractor.roi_layers[0].output_size
            region = torch.empty(2, channels, *size, device='meta')
            found = _try_part(f'roi_head.{kind}_head{many}', _OnOneMap(head), [region], f'its {kind}_roi_extractor')
            if found is not None:
                yield found


class _OnOneMap(nn.Module):
    """A head that takes a tensor, as one that takes a tuple of it."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.in_channels = getattr(head, 'in_channels', None)

    def forward(self, maps: Sequence[Tensor]) -> object:
        return self.head(maps[0])


def _as_list(part: nn.Module | None) -> list[nn.Module]:
    return [] if part is None else list(part) if isinstance(part, nn.ModuleList) else [part]
