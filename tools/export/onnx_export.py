"""Export a model as an ONNX graph that takes images of any number and size.

    python tools/export/onnx_export.py CONFIG CHECKPOINT OUT.onnx

The graph holds what follows the data preprocessor: its input ``image`` (B, C, H, W) is
normalised as the config says (mean, std and channel order are written into the model's
metadata). Its outputs are logits (mmpretrain), class-score maps (mmsegmentation), heatmaps
(mmpose), or the neck's maps (mmdetection, whose post-processing is not part of it). ScopeViT
is exported in its deploy form. The result is compared with PyTorch's on other sizes before
it is kept.
"""

from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import require_new_file


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config', 'checkpoint')
    add_arguments(parser, 'out', help='file to write (.onnx)')
    size = 'height and width to trace with, or one number for a square (default: 224 288)'
    add_arguments(parser, '--size', default=(224, 288), help=size)
    args = parser.parse_args()

    from scopevit.apis.export import export_onnx
    from scopevit.utils.config import load_config

    if min(args.size) < 33:
        raise UserError(
            f'--size must be at least 33 33, but is {args.size[0]} {args.size[1]}: smaller images leave one row '
            'or column on the last map, and a graph traced with it serves no others'
        )
    if not args.out.endswith('.onnx'):
        raise UserError(f'OUT must end in .onnx, but is {args.out}')
    require_new_file(args.out, 'OUT')
    difference = export_onnx(load_config(args.config, args.cfg_options), args.checkpoint, args.size, args.out)
    print(f'wrote {args.out}; largest difference from PyTorch {difference:.1e} standard deviations')


if __name__ == '__main__':
    main()
