"""Draw test images with what a classifier says of them: one picture, mistakes in red.

    python tools/visualization/draw_predictions.py CONFIG predictions.pkl --out predictions.png

The predictions are what tools/test.py wrote for the same config.
"""

import argparse
import os
import random

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import mmcv
import mmengine
import numpy as np
from mmengine.registry import DATASETS, DefaultScope

from scopevit.engine.errors import UserError, user_errors
from scopevit.engine.launch import load_config


def load_image(info: dict) -> np.ndarray:
    """The image of a data set's entry, as grey or RGB."""
    image = info['img'] if 'img' in info else mmcv.imread(info['img_path'], channel_order='rgb')
    return image.squeeze()


def draw(config: str, predictions: str, out: str, rows: int, cols: int, seed: int) -> None:
    cfg = load_config(config)
    if not os.path.isfile(predictions):
        raise UserError(f'{predictions} does not exist; tools/test.py writes it')
    results = mmengine.load(predictions)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    if len(results) != len(dataset) or 'pred_label' not in results[0]:
        raise UserError(f'{predictions} does not hold class predictions for the {len(dataset)} images of {config}')
    classes = dataset.metainfo['classes']

    chosen = sorted(random.Random(seed).sample(range(len(dataset)), min(rows * cols, len(dataset))))
    figure, grid = plt.subplots(rows, cols, figsize=(1.7 * cols, 2.05 * rows), layout='constrained', squeeze=False)
    for axes in grid.flat:
        axes.axis('off')
    for axes, i in zip(grid.flat, chosen):
        label, truth = int(results[i]['pred_label']), int(results[i]['gt_label'])
        score = float(results[i]['pred_score'].max())
        axes.imshow(load_image(dataset.get_data_info(i)), cmap='gray')
        title = f'{classes[label]} {score:.0%}' + ('' if label == truth else f'\nnot {classes[truth]}')
        axes.set_title(title, fontsize=8, color='darkgreen' if label == truth else 'red')
    right = sum(int(r['pred_label']) == int(r['gt_label']) for r in results)
    figure.suptitle(f'{right} of {len(results)} test images right ({right / len(results):.1%}); {len(chosen)} of them:')
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    figure.savefig(out, dpi=110)
    print(f'wrote {out}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the test run')
    parser.add_argument('predictions', help='predictions.pkl that tools/test.py wrote')
    parser.add_argument('--out', default='predictions.png', help='picture to write (default: %(default)s)')
    parser.add_argument('--rows', type=int, default=5)
    parser.add_argument('--cols', type=int, default=8)
    parser.add_argument('--seed', type=int, default=0, help='which images are drawn')
    args = parser.parse_args()
    with user_errors():
        draw(args.config, args.predictions, args.out, args.rows, args.cols, args.seed)


if __name__ == '__main__':
    main()
