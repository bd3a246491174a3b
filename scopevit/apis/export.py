"""Models as ONNX graphs that take images of any number and size."""

import importlib.util
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..utils.errors import UserError, one_line
from ..utils.files import whole_file
from ..utils.toolboxes import TOOLBOXES
from .model import Network, Size, build_model, image_channels

# Largest difference from PyTorch that is accepted, in standard deviations of the output.
TOLERANCE = 1e-4
# Batch, height and width of the images that it is compared on.
SIZES = ((1, 192, 192), (3, 224, 224), (2, 256, 256), (1, 333, 500))


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn whatever a model, the exporter or the runtime raises into one message."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # the exporter's own message is a page about itself
            cause = cause.__cause__
        raise UserError(f'{what}: {one_line(cause, 500)}') from error


def _extract(model: Any, images: Tensor) -> object:
    return model.extract_feat(images)


def _build(cfg: Config, checkpoint: str) -> Network:
    """The config's network with the checkpoint's weights, ready for inference."""
    scope = cfg.get('default_scope')
    if scope not in TOOLBOXES:
        raise UserError(f"the config's default_scope is {scope}; supported are {', '.join(TOOLBOXES)}")
    init_default_scope(scope)
    model: Any = build_model(cfg, checkpoint).eval()
    if hasattr(model.backbone, 'switch_to_deploy'):
        model.backbone.switch_to_deploy()
    network = Network(model).eval()
    if scope == 'mmdet':  # proposals and their suppression make no graph: backbone and neck
        network.call = _extract
    return network


def _preprocessing(cfg: Config) -> dict:
    """What has to be done to an image before the graph sees it."""
    settings = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    channels = 'RGB' if settings.get('to_rgb') or settings.get('bgr_to_rgb') else 'BGR'
    return dict(mean=list(settings.get('mean') or []), std=list(settings.get('std') or []), channels=channels)


def _export(network: Network, size: Sequence[int], path: str, metadata: dict) -> None:
    """Write the graph to ``path``."""
    dynamic = torch.export.Dim.DYNAMIC
    # Two images: a batch of one would be exported as a constant.
    example = torch.zeros(2, image_channels(network.model), *size)
    with _explained('the model cannot be exported as one graph for images of any size'):
        program: Any = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=['image'],
            dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
            verbose=False,
        )
    program.model.metadata_props.update({key: json.dumps(value) for key, value in metadata.items()})
    program.save(path)


@torch.no_grad()
def _references(network: Network) -> list[tuple[Tensor, list[Tensor]]]:
    """Images of several sizes, and what PyTorch makes of them."""
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for batch, height, width in SIZES:
        image = torch.randn(batch, image_channels(network.model), height, width, generator=generator)
        with _explained(f'this model does not take images of any size; at {height}x{width} it fails'):
            pairs.append((image, tree_leaves(network(image))))
    return pairs


def _largest_difference(path: str, pairs: Sequence[tuple[Tensor, list[Tensor]]]) -> float:
    """Between PyTorch's and onnxruntime's outputs, in standard deviations of the former."""
    import onnxruntime

    with _explained('onnxruntime does not take the graph'):
        session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    worst = 0.0
    for image, expected in pairs:
        with _explained(f'the graph fails at {image.shape[2]}x{image.shape[3]}'):
            for ours, theirs in zip(expected, session.run(None, {'image': image.numpy()})):
                difference = np.abs(ours.numpy() - theirs).max()
                worst = max(worst, float(difference / max(ours.std(unbiased=False).item(), 1e-6)))
    return worst


def export_onnx(cfg: Config, checkpoint: str, size: Size, path: str) -> float:
    """Write the graph of a config's model, in its deploy form, with how images are normalised as its metadata.

    Args:
        size: Height and width to trace with.

    Returns:
        The largest difference from PyTorch on images of other sizes, in standard deviations of the output.

    Raises:
        UserError: If a package is missing, the model cannot be built or exported, or the graph differs or fails;
            nothing is written then.
    """
    missing = [name for name in ('onnx', 'onnxscript', 'onnxruntime') if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'not installed: {", ".join(missing)}; install requirements/export.txt')
    network = _build(cfg, checkpoint)
    pairs = _references(network)
    with whole_file(path) as draft:
        _export(network, size, draft, _preprocessing(cfg))
        difference = _largest_difference(draft, pairs)
        if not difference < TOLERANCE:
            raise UserError(f'the graph differs from PyTorch by {difference:.1e} standard deviations; not written')
    return difference
