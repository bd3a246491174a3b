"""Draw which head of a ScopeViT looks how far, and what a pixel attends to, in any image and for any task.

    python tools/visualization/scopes.py CONFIG IMAGE --checkpoint CHECKPOINT --pixel 120 80 --out scopes.png

A row for each stage: what the token at the pixel attends to by the heads of the 7x7, 5x5 and 3x3 scope,
from few (dark, transparent) to most (bright) over the image, the window that the strongest key is computed
from dashed; and the tokens of the pixel's group in GSDA. Beside them each head's mean attention distance in
pixels of the image. With several images distances are the mean over all; the first is drawn.
Without --checkpoint weights are random, as a training begins.
"""

import argparse

from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import require_writable_file, save_figure, write_json
from scopevit.utils.silence import silence_toolboxes


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config', 'images')
    checkpoint = 'checkpoint of the model that the config describes (default: random weights)'
    parser.add_argument('--checkpoint', metavar='CHECKPOINT', help=checkpoint)
    add_arguments(parser, '--pixel', help='a place in the first image (default: its middle)')
    parser.add_argument('--stages', nargs='+', type=int, metavar='N', help='stages to draw (default: all)')
    add_arguments(parser, '--box')
    add_arguments(parser, '--out', default='scopes.png')
    add_arguments(parser, '--json', help='write the distances of all heads (default: they are only drawn)')
    add_arguments(parser, '--device')
    return parser.parse_args()


@user_errors()
def main() -> None:
    args = parse_args()

    import torch

    from scopevit.analysis import attention_maps
    from scopevit.analysis.overlays import draw_scopes
    from scopevit.apis.inferencer import build_predictor
    from scopevit.apis.painter import require_writable_figure
    from scopevit.apis.view import view_of
    from scopevit.utils.config import load_config

    silence_toolboxes()
    cfg = load_config(args.config, args.cfg_options)
    require_writable_figure(args.out)
    if args.json:
        require_writable_file(args.json, '--json')
    torch.manual_seed(0)  # random weights are the same each time
    predictor = build_predictor(cfg, args.checkpoint, args.device)
    backbone = attention_maps.scopevit_of(predictor.model)
    built = range(1, len(backbone.stages) + 1)
    stages = args.stages or list(built)
    if not set(stages) <= set(built):
        raise UserError(f'--stages takes numbers from 1 to {len(built)}, the stages of this backbone')
    views = [view_of(predictor, path, args.box) for path in args.images]
    height, width = views[0].image.shape[:2]
    pixel = tuple(args.pixel or (width // 2, height // 2))
    views[0].in_input(*pixel)  # before the work
    found = []
    for seen in views[::-1]:  # the first one last: it is drawn
        layers = attention_maps.attention_layers(backbone, seen.inputs)
        found.append(attention_maps.head_distances(layers, seen))
    heads = attention_maps.mean_over_images(found)
    figure = draw_scopes(views[0], [layer for layer in layers if layer.stage in stages], heads, pixel)
    save_figure(figure, args.out)
    for (stage, scope), (distance, equal) in attention_maps.by_scope(heads).items():
        print(f'stage {stage}  {scope:5} {distance:7.1f} px  (equal weights: {equal:.1f})')
    print(f'wrote {args.out}')
    if args.json:
        write_json(args.json, dict(config=args.config, checkpoint=args.checkpoint, images=args.images, heads=heads))
        print(f'wrote {args.json}')


if __name__ == '__main__':
    main()
