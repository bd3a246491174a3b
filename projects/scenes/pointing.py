"""The pointing game: how often the evidence of a class is highest on an object of that class.

    python projects/scenes/pointing.py CONFIG CHECKPOINT --table projects/scenes/pointing.md

CONFIG is one of the scenes' configs for classification or segmentation, CHECKPOINT a checkpoint of it. The held-out
scenes are made again, with the exact masks of their objects. A classifier is asked for the class of the one object,
a segmenter for each class of object that there is, by its mean logit over the whole image, which says nothing of
where. Beside it stand the same model with a backbone as initialised at random, and what a point in the middle of
the image and one anywhere would hit. No tolerance: the point is on the mask or not.
"""

import argparse
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import MMLogger
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for this project's generator

from projects.scenes.generator.compose import make_object, make_scene  # noqa: E402
from projects.scenes.generator.layouts import IMAGENET_INDEX, generator  # noqa: E402
from scopevit.analysis.attention_maps import scopevit_of  # noqa: E402
from scopevit.analysis.evidence import Choice, Target, evidence, number_of, peak, target_of  # noqa: E402
from scopevit.analysis.machine import describe_machine, machine_in_words  # noqa: E402
from scopevit.apis.inferencer import Classifier, Predictor, Segmenter, build_predictor  # noqa: E402
from scopevit.apis.model import build_model, tensor_call  # noqa: E402
from scopevit.apis.view import View, view  # noqa: E402
from scopevit.utils.arguments import add_arguments, tool_parser  # noqa: E402
from scopevit.utils.config import load_config  # noqa: E402
from scopevit.utils.errors import UserError, user_errors  # noqa: E402
from scopevit.utils.tables import markdown  # noqa: E402

Question = tuple[np.ndarray, str, np.ndarray]
"""Image (H, W, 3) in BGR, a class by name or number, and the pixels (H, W) of its objects."""


def objects(count: int) -> Iterator[Question]:
    """The held-out images of the classification set."""
    categories = list(IMAGENET_INDEX)
    for i in range(count):
        category = categories[i % len(categories)]
        scene = make_object(generator(0, 'imagenet', 'val', i), category)
        yield scene.image, str(IMAGENET_INDEX[category]), scene.things[0].mask


def scenes(count: int) -> Iterator[Question]:
    """The held-out images of the segmentation set, once for each class of object."""
    for i in range(count):
        scene = make_scene(generator(0, 'ade20k', 'val', i))
        for category in sorted({thing.category for thing in scene.things}):
            mask = np.any([thing.mask for thing in scene.things if thing.category == category], axis=0)
            yield scene.image, category, mask


def whole_image(predictor: Predictor, seen: View, choice: Choice) -> Target:
    """A class of a segmentation: its mean logit over the image."""
    logits = tensor_call(predictor.model)(predictor.model, seen.inputs)
    label = number_of(choice.name, predictor.classes, logits.shape[1], 'class')
    return Target(logits[0, label].mean(), choice.name)


def play(predictor: Predictor, questions: list[Question]) -> dict[tuple[str, int], float]:
    """Share of the questions in which the evidence is highest on the object, by method and stage."""
    find = whole_image if isinstance(predictor, Segmenter) else target_of
    hits = defaultdict(list)
    for image, name, mask in questions:
        seen = view(predictor, image)
        for method, cams in evidence(predictor, seen, Choice(name), find)[1].items():
            for stage, cam in enumerate(cams):
                if cam.size > 1:
                    point = peak(seen, cam, stage).round().astype(int)
                    hits[method, stage + 1].append(mask[tuple(point.clip(0, np.array(mask.shape) - 1))])
    return {key: float(np.mean(found)) for key, found in hits.items()}


def table(args: argparse.Namespace) -> str:
    cfg = load_config(args.config, args.cfg_options)
    trained = build_predictor(cfg, args.checkpoint, 'cpu')
    if not isinstance(trained, (Classifier, Segmenter)):
        raise UserError('the pointing game is for the scenes of classification and segmentation')
    questions = list((objects if isinstance(trained, Classifier) else scenes)(args.count))
    backbone: nn.Module = scopevit_of(trained.model)
    torch.manual_seed(0)
    initial = scopevit_of(build_model(cfg)).state_dict()
    found = {'trained': play(trained, questions)}
    backbone.load_state_dict(initial)
    found['random'] = play(trained, questions)

    stages = range(1, len(backbone.stages) + 1)
    rows = [('Method', 'Backbone', *(f'stage {stage}' for stage in stages))]
    for method in sorted({method for method, _ in found['trained']}):
        for name, shares in found.items():
            given = (shares.get((method, stage)) for stage in stages)
            rows.append((method, name, *('-' if share is None else f'{share:.1%}' for share in given)))
    masks = [mask for *_, mask in questions]
    middle = np.mean([mask[mask.shape[0] // 2, mask.shape[1] // 2] for mask in masks])
    return (
        f'`{Path(args.config).stem}`, {len(questions)} questions about {args.count} images: the middle of the image '
        f'would hit {middle:.1%}, a point anywhere {np.mean([mask.mean() for mask in masks]):.1%}.\n\n'
        f'{markdown(rows, text_columns=2)}\n\n{machine_in_words(describe_machine("cpu"))}\n'
    )


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config', help="a config of the scenes' classification or segmentation")
    add_arguments(parser, 'checkpoint')
    add_arguments(parser, '--count', default=200)
    add_arguments(parser, '--table', type=Path, help='add what is printed to this page (default: it is only printed)')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')  # of the toolboxes about their own settings
    MMLogger.get_instance('pointing', log_level='ERROR')
    text = table(args)
    print(text)
    if args.table:
        with args.table.open('a') as file:
            file.write(f'\n{text}')


if __name__ == '__main__':
    main()
