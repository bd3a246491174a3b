"""Count parameters and multiply-accumulates of any config's model, part by part.

    python tools/analysis/get_flops.py configs/classification/scopevit-tiny_8xb128-300e_in1k-256px.py
    python tools/analysis/get_flops.py mmdet::retinanet/retinanet_r50_fpn_1x_coco.py --size 800 1344 --depth 3

One image goes through the model as mode 'tensor' of the toolboxes defines it: backbone, neck and
heads, without losses and post-processing. It is not resized; --size is what the model gets to see.
"""

from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.errors import UserError, one_line, raise_own, user_errors


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config')
    size = 'height and width, or one number for a square (default: what the config tests with)'
    add_arguments(parser, '--size', help=size)
    parser.add_argument(
        '--depth', type=int, default=2, metavar='N', help='levels of parts to list (default: %(default)s)'
    )
    args = parser.parse_args()

    import torch

    from scopevit.analysis import CONVENTION, count
    from scopevit.analysis.reporting import tree
    from scopevit.apis.model import build_model, image_channels, image_size, runnable, tensor_call
    from scopevit.utils.config import load_config

    cfg = load_config(args.config, args.cfg_options)
    torch.manual_seed(0)  # a detector's proposals depend on its weights
    model = runnable(cfg, build_model(cfg))[1]
    size = args.size or image_size(cfg)
    if size is None:
        raise UserError('this config does not say what size its images have; give --size H W')
    image = torch.rand(1, image_channels(model), *size)
    try:
        counted = count(model, image, call=tensor_call(model))
    except Exception as error:  # whatever a model raises
        raise_own(error)
        where = f'the model does not run at {size[0]}x{size[1]}'
        raise UserError(f'{where}: {one_line(error)}; try another --size') from error

    print(tree(counted, args.depth))
    kinds = ', '.join(f'{macs / 1e9:.3f} G {kind}' for kind, macs in counted.by_kind.items())
    print(f'\nOne image of {size[0]}x{size[1]}: {counted.macs:,} MACs ({kinds}); {counted.parameters:,} parameters.')
    print(f'MACs are {CONVENTION}.')
    if counted.uncounted:
        print(f'Not counted, as nothing is known about them: {", ".join(counted.uncounted)}.')


if __name__ == '__main__':
    main()
