"""Export a model as an ONNX graph that takes images of any number and size.

    python tools/export/onnx_export.py CONFIG CHECKPOINT OUT.onnx

The graph holds what follows the data preprocessor: its input ``image`` (B, C, H, W) is
normalised as the config says (mean, std and channel order are written into the model's
metadata). Its outputs are logits (mmpretrain), class-score maps (mmsegmentation), heatmaps
(mmpose), or the neck's maps (mmdetection, whose post-processing is not part of it). ScopeViT
is exported in its deploy form. The result is compared with PyTorch's on other sizes before
it is kept.
"""

import importlib.util
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor
from torch.utils._pytree import tree_leaves

from scopevit.apis.model import Network, build_model, image_channels
from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.config import load_config
from scopevit.utils.errors import UserError, one_line, user_errors
from scopevit.utils.files import require_new_file, whole_file
from scopevit.utils.toolboxes import TOOLBOXES

# Largest difference from PyTorch that is accepted, in standard deviations of the output.
TOLERANCE = 1e-4
# Batch, height and width of the images that it is compared on.
SIZES = ((1, 192, 192), (3, 224, 224), (2, 256, 256), (1, 333, 500))


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn whatever a model, the exporter or the runtime raises into one message."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause = error
        while cause.__cause__ is not None:  # the exporter's own message is a page about itself
            cause = cause.__cause__
        raise UserError(f'{what}: {one_line(cause, 500)}') from error


def require_packages() -> None:
    missing = [name for name in ('onnx', 'onnxscript', 'onnxruntime') if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'not installed: {", ".join(missing)}; install requirements/export.txt')


def build(cfg: Config, checkpoint: str) -> Network:
    """The config's network with the checkpoint's weights, ready for inference."""
    scope = cfg.get('default_scope')
    if scope not in TOOLBOXES:
        raise UserError(f"the config's default_scope is {scope}; supported are {', '.join(TOOLBOXES)}")
    init_default_scope(scope)
    model = build_model(cfg, checkpoint).eval()
    if hasattr(model.backbone, 'switch_to_deploy'):
        model.backbone.switch_to_deploy()
    network = Network(model).eval()
    if scope == 'mmdet':  # proposals and their suppression make no graph: backbone and neck
        network.call = lambda model, images: model.extract_feat(images)
    return network


def preprocessing(cfg: Config) -> dict:
    """What has to be done to an image before the graph sees it."""
    settings = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    channels = 'RGB' if settings.get('to_rgb') or settings.get('bgr_to_rgb') else 'BGR'
    return dict(mean=list(settings.get('mean') or []), std=list(settings.get('std') or []), channels=channels)


def export(network: Network, size: Sequence[int], path: str, metadata: dict) -> None:
    """Write the graph to ``path``."""
    dynamic = torch.export.Dim.DYNAMIC
    # Two images: a batch of one would be exported as a constant.
    example = torch.zeros(2, image_channels(network.model), *size)
    with explained('the model cannot be exported as one graph for images of any size'):
        program = torch.onnx.export(
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
def references(network: Network) -> list[tuple[Tensor, list[Tensor]]]:
    """Images of several sizes, and what PyTorch makes of them."""
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for batch, height, width in SIZES:
        image = torch.randn(batch, image_channels(network.model), height, width, generator=generator)
        with explained(f'this model does not take images of any size; at {height}x{width} it fails'):
            pairs.append((image, tree_leaves(network(image))))
    return pairs


def largest_difference(path: str, pairs: Sequence[tuple[Tensor, list[Tensor]]]) -> float:
    """Between PyTorch's and onnxruntime's outputs, in standard deviations of the former."""
    import onnxruntime

    with explained('onnxruntime does not take the graph'):
        session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    worst = 0.0
    for image, expected in pairs:
        with explained(f'the graph fails at {image.shape[2]}x{image.shape[3]}'):
            for ours, theirs in zip(expected, session.run(None, {'image': image.numpy()})):
                difference = np.abs(ours.numpy() - theirs).max()
                worst = max(worst, float(difference / max(ours.std(unbiased=False).item(), 1e-6)))
    return worst


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config', 'checkpoint')
    add_arguments(parser, 'out', help='file to write (.onnx)')
    size = 'height and width to trace with, or one number for a square (default: 224 288)'
    add_arguments(parser, '--size', default=(224, 288), help=size)
    args = parser.parse_args()

    if min(args.size) < 33:
        raise UserError(
            f'--size must be at least 33 33, but is {args.size[0]} {args.size[1]}: smaller images leave one row '
            'or column on the last map, and a graph traced with it serves no others'
        )
    require_packages()
    require_new_file(args.out, 'OUT')
    cfg = load_config(args.config, args.cfg_options)
    network = build(cfg, args.checkpoint)
    pairs = references(network)
    with whole_file(args.out) as path:
        export(network, args.size, path, preprocessing(cfg))
        difference = largest_difference(path, pairs)
        if not difference < TOLERANCE:
            raise UserError(f'the graph differs from PyTorch by {difference:.1e} standard deviations; not written')
    print(f'wrote {args.out}; largest difference from PyTorch {difference:.1e} standard deviations')


if __name__ == '__main__':
    main()
