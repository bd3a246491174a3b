"""Write a checkpoint in the deploy form: equal results, less work, no training any more.

    python tools/converters/deploy_model.py CONFIG CHECKPOINT OUT
    python tools/test.py CONFIG OUT --cfg-options model.backbone.deploy=True

Batch norms are folded into convolutions, layer scales into linear layers, and the MLP of the
relative position bias becomes a table. It works for a config of any task whose backbone has
a ``switch_to_deploy``, as ScopeViT and some of mmpretrain's have.
"""

from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.errors import UserError, user_errors


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config', 'checkpoint', 'out')
    args = parser.parse_args()

    from scopevit.apis.model import build_model
    from scopevit.utils.checkpoint import read_checkpoint, save_checkpoint, slim_meta
    from scopevit.utils.config import load_config

    model = build_model(load_config(args.config, args.cfg_options), args.checkpoint)
    backbone = getattr(model, 'backbone', None)
    if not hasattr(backbone, 'switch_to_deploy'):
        raise UserError(f'the backbone {type(backbone).__name__} of {args.config} has no deploy form')
    if getattr(backbone, 'deploy', False):
        raise UserError(f'{args.config} describes the deploy form already (deploy=True); give that of the training')
    backbone.switch_to_deploy()
    meta = slim_meta(read_checkpoint(args.checkpoint))
    save_checkpoint(dict(state_dict=model.state_dict(), meta=meta), args.out)
    print(f'wrote {args.out}; it loads with --cfg-options model.backbone.deploy=True')


if __name__ == '__main__':
    main()
