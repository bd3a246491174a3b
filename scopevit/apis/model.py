"""Models of the toolboxes' configs: building them, finding their parts, running them as plain networks."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..utils.building import building
from ..utils.checkpoint import require_fit
from ..utils.config import first_value, replace_sync_bn, walk, without_weights
from ..utils.errors import UserError
from ..utils.silence import silence

Size = tuple[int, int]
"""Height and width."""


@contextmanager
def in_scope(scope: str) -> Iterator[None]:
    """Resolve plain type names in a toolbox, as its Runner would."""
    with DefaultScope.overwrite_default_scope(scope):
        yield


def build_model(cfg: Config, checkpoint: str | None = None) -> nn.Module:
    """The model of a config of any toolbox, on the CPU, for one process.

    Args:
        cfg: The config; it stays as it is.
        checkpoint: Checkpoint whose weights it is to have; without one they are random, whatever
            pretrained weights the config names.

    Raises:
        UserError: If it cannot be built; it names the setting at fault.
        CheckpointError: If the checkpoint cannot be read or is of another model.
    """
    settings = model_settings(cfg)
    with building(cfg, 'the model'), in_scope(cfg.get('default_scope', 'mmengine')), silence():
        model = MODELS.build(settings)
    if checkpoint is not None:
        require_fit(model, checkpoint)  # and loads it
    return model


def model_settings(cfg: Config) -> ConfigDict:
    """A copy of a config's settings of the model as the Runner completes them, for one process, without weights.

    Raises:
        UserError: If there are none.
    """
    if not isinstance(cfg.get('model'), dict):
        raise UserError('this config has no model')
    settings = ConfigDict(without_weights(cfg.model.to_dict()))
    if cfg.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', cfg.data_preprocessor.to_dict())
    replace_sync_bn(settings)
    return settings


def tensor_call(model: nn.Module) -> Callable[[nn.Module, Tensor], object]:
    """How a toolbox's model is run on preprocessed images without losses and post-processing (its mode 'tensor')."""
    if type(model).__name__ == 'Mask2FormerVideo':  # whose mode 'tensor' is not implemented
        return _track
    if any(kind.__module__.startswith('mmdet.') for kind in type(model).__mro__):
        return _detect
    head = getattr(model, 'decode_head', None)
    last = head[-1] if isinstance(head, nn.ModuleList) else head
    if type(last).__name__ in ('MaskFormerHead', 'Mask2FormerHead', 'PointHead'):  # which mmseg's mode does not serve
        return _classify_masks
    return _plain


def _plain(model: nn.Module, images: Tensor) -> object:
    return model(images, None, mode='tensor')


def _detect(model: nn.Module, images: Tensor) -> object:
    from mmdet.structures import DetDataSample

    samples = [DetDataSample(metainfo=meta) for meta in _metas(images)]
    for sample in samples:
        # Fast R-CNN takes proposals from its data, and a few others want ground truth even where there is no loss.
        boxes = images.new_tensor(images.shape[:1:-1]).repeat(16, 2) * images.new_tensor([0.25, 0.25, 0.75, 0.75])
        labels = boxes.new_zeros(16, dtype=torch.long)
        sample.proposals = InstanceData(bboxes=boxes, scores=boxes.new_ones(16))
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
    return model(images, samples, mode='tensor')


def _track(model: Any, images: Tensor) -> object:
    return model.track_head(model.backbone(images), None)  # the images are the frames of a clip


def _classify_masks(model: Any, images: Tensor) -> object:
    return model.encode_decode(images, _metas(images))


def _metas(images: Tensor) -> list:
    size = tuple(images.shape[2:])
    shapes = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0))
    return [dict(shapes) for _ in images]


class Network(nn.Module):
    """A toolbox's model as a plain network: preprocessed images (B, C, H, W) in, what its heads make of them out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.call = tensor_call(model)

    def forward(self, images: Tensor) -> object:
        return self.call(self.model, images)


def image_channels(model: nn.Module) -> int:
    """Channels of the images that a model takes: those of its backbone, else of its first convolution, else 3."""
    for module in (getattr(model, 'backbone', None), *model.modules()):
        channels = getattr(module, 'in_channels', None)
        if isinstance(channels, int):
            return channels
    return 3


def image_size(cfg: Config) -> Size | None:
    """Size of the images that a config tests with, padded as its model pads them; None if it does not say.

    Of sizes that depend on the image it is that of a wide image, which just fits: 800x1344 for
    COCO's usual 1333x800.
    """
    size = first_value(cfg.get('codec'), 'input_size')  # of poses: width, height
    if size is not None:
        return size[1], size[0]
    preprocessor = (cfg.get('model') or {}).get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    if preprocessor.get('size') is not None:  # mmseg's crops
        return _height_and_width(preprocessor['size'])
    steps = list(walk(cfg.get('test_dataloader')))
    crop = next((step['crop_size'] for step in steps if 'CenterCrop' in str(step.get('type'))), None)
    if crop is not None:
        return _height_and_width(crop)
    scale = next((step['scale'] for step in steps if 'Resize' in str(step.get('type')) and step.get('scale')), None)
    if scale is None:
        return None
    height, width = sorted(_height_and_width(scale)) if isinstance(scale, (list, tuple)) else (scale, scale)
    divisor = preprocessor.get('pad_size_divisor') or 1
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def _height_and_width(size: int | Sequence[int]) -> Size:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def switch_to_deploy(model: nn.Module) -> nn.Module:
    """Bring all parts of a model that have a form for deployment into it.

    The toolboxes call that ``switch_to_deploy``; timm knows its own models.

    Raises:
        UserError: If no part has one.
    """
    if type(model).__module__.startswith('timm.'):
        from timm.utils.model import reparameterize_model

        if not any(hasattr(m, name) for m in model.modules() for name in ('fuse', 'reparameterize')):
            raise UserError(f'{type(model).__name__} has no form for deployment')
        return reparameterize_model(model)
    if not _switch(model):
        raise UserError(f'{type(model).__name__} has no part with a switch_to_deploy method')
    return model


def _switch(module: Any) -> bool:
    if hasattr(module, 'switch_to_deploy'):  # it sees to what is in it
        module.switch_to_deploy()
        return True
    return any([_switch(child) for child in list(module.children())])


def runnable(cfg: Config, model: nn.Module) -> tuple[ConfigDict, nn.Module]:
    """The part of a model that takes images: a tracker or a semi-supervised method trains its detector."""
    if 'detector' in cfg.model:
        return cfg.model.detector, model.get_submodule('student' if hasattr(model, 'student') else 'detector')
    return cfg.model, model


def backbone_of(model: nn.Module) -> tuple[str, nn.Module]:
    """The backbone that a model of any toolbox trains, and its name in it, such as ``'backbone'``.

    Trackers have it in their ``detector``, semi-supervised methods in their ``student``.

    Raises:
        UserError: If there is none.
    """
    for name in ('backbone', 'detector.backbone', 'student.backbone'):
        try:
            return name, model.get_submodule(name)
        except AttributeError:
            continue
    raise UserError(f'{type(model).__name__} has no backbone, neither of its own nor in a detector or student')


def computes(device: str | torch.device) -> bool:
    """Whether a device computes: after an error of CUDA's own, of which not all have a type, none does any more."""
    try:
        torch.zeros(1, device=device).item()
    except torch.OutOfMemoryError:
        return True
    except RuntimeError:
        return False
    return True


def count_classes(model: nn.Module) -> dict[str, int]:
    """How many classes each head of a model tells apart, by the head's name."""
    return {
        name: module.num_classes
        for name, module in model.named_modules()
        # A region proposal head tells objects from background, not classes; a loss is no head.
        if re.search(r'head(\.\d+)?$', name) and 'rpn' not in name
        if isinstance(getattr(module, 'num_classes', None), int)
    }
