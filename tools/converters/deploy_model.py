"""Write a checkpoint in the deploy form: equal results, less work, no training any more.

    python tools/converters/deploy_model.py CONFIG CHECKPOINT OUT
    python tools/test.py CONFIG OUT --cfg-options model.backbone.deploy=True

Batch norms are folded into convolutions, layer scales into linear layers, and the MLP of the
relative position bias becomes a table. It works for a config of any task whose backbone has
a ``switch_to_deploy``, as ScopeViT and some of mmpretrain's have.
"""

from scopevit.apis.model import build_model
from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.checkpoint import get_meta, read_checkpoint, save_checkpoint, to_plain
from scopevit.utils.config import add_config_options, load_config
from scopevit.utils.errors import UserError, user_errors


def deploy(config: str, path: str, out: str, cfg_options: dict | None = None) -> None:
    """Write the checkpoint ``path`` of ``config`` in the deploy form to ``out``."""
    cfg = load_config(config, cfg_options)
    model = build_model(cfg, path)
    backbone = getattr(model, 'backbone', None)
    if not hasattr(backbone, 'switch_to_deploy'):
        raise UserError(f'the backbone {type(backbone).__name__} of {config} has no deploy form')
    if getattr(backbone, 'deploy', False):
        raise UserError(f'{config} describes the deploy form already (deploy=True); give the config of the training')
    backbone.switch_to_deploy()
    meta = get_meta(read_checkpoint(path))
    meta = {key: to_plain(meta[key]) for key in ('epoch', 'iter', 'dataset_meta') if key in meta}
    save_checkpoint(dict(state_dict=model.state_dict(), meta=meta), out)


def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'config', 'checkpoint', 'out')
    add_config_options(parser)
    args = parser.parse_args()
    with user_errors():
        deploy(args.config, args.checkpoint, args.out, args.cfg_options)
        print(f'wrote {args.out}; it loads with --cfg-options model.backbone.deploy=True')


if __name__ == '__main__':
    main()
