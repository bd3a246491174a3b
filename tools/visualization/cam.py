"""Draw where in images a model with ScopeViT finds the evidence of what it predicts, stage by stage, in all four tasks.

    python tools/visualization/cam.py CONFIG CHECKPOINT photos/*.jpg --out cam.png
    python tools/visualization/cam.py CONFIG CHECKPOINT street.jpg --class bus --pixel 210 95

By Grad-CAM and LayerCAM a row for each image and method. By the task of the config it is the evidence of

  classification  the class predicted, or --class
  detection       the best box, or the best of --class or around --pixel
  segmentation    the class that covers most, or --class; with --pixel the connected region there
  pose            the joint of the highest score, or --joint; of the person in --box, else in the whole image

Classes and joints are given by name or number. Bright is most in each panel: panels do not compare by their brightness.
"""

from scopevit.utils.arguments import CAM_METHODS, add_arguments, tool_parser
from scopevit.utils.errors import UserError, user_errors
from scopevit.utils.files import save_figure
from scopevit.utils.silence import silence_toolboxes


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config', 'checkpoint', 'images')
    parser.add_argument('--class', dest='name', metavar='NAME', help='a class (default: by the task, see above)')
    parser.add_argument('--joint', metavar='NAME', help='a joint, of pose models (default: see above)')
    add_arguments(parser, '--pixel', help='which region or box (default: see above)')
    add_arguments(parser, '--box')
    parser.add_argument(
        '--methods', nargs='+', choices=CAM_METHODS, default=list(CAM_METHODS), help='methods (default: both)'
    )
    add_arguments(parser, '--out', default='cam.png')
    add_arguments(parser, '--device')
    args = parser.parse_args()

    from scopevit.analysis.evidence import Choice, evidence
    from scopevit.analysis.overlays import draw_evidence
    from scopevit.apis.inferencer import PoseEstimator, build_predictor
    from scopevit.apis.painter import require_writable_figure
    from scopevit.apis.view import view_of
    from scopevit.utils.config import load_config

    silence_toolboxes()
    cfg = load_config(args.config, args.cfg_options)
    require_writable_figure(args.out)
    predictor = build_predictor(cfg, args.checkpoint, args.device)
    is_pose = isinstance(predictor, PoseEstimator)
    if (args.name is not None and is_pose) or (args.joint is not None and not is_pose):
        raise UserError('--joint is for pose models, --class for the others')
    choice = Choice(args.joint if is_pose else args.name, args.pixel)
    found = []
    for path in args.images:
        seen = view_of(predictor, path, args.box)
        # One backward pass gives the maps of all methods.
        target, cams = evidence(predictor, seen, choice)
        print(f'{path}: {target.title}')
        found.append((seen, target, {name: cams[name] for name in args.methods}))
    save_figure(draw_evidence(found), args.out)
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
