"""Write a slim copy of a training checkpoint: weights and plain facts, with a hash in its name.

    python tools/converters/publish_model.py work_dirs/x/epoch_300.pth scopevit-tiny.pth

gives scopevit-tiny-<first 8 digits of the file's SHA-256>.pth, which torch.load reads with
weights_only=True and nothing else allowed.
"""

import argparse
import hashlib
import os
from pathlib import Path

from scopevit.utils.checkpoint import CheckpointError, get_meta, get_state_dict, read_checkpoint, to_bytes, to_plain
from scopevit.utils.errors import user_errors
from scopevit.utils.files import whole_file

# Facts worth keeping; the training config and logs, which hold paths of a machine, are not.
KEPT_META = ('epoch', 'iter', 'seed', 'mmengine_version', 'dataset_meta', 'arch')


def select_weights(checkpoint: dict, kind: str, path: str) -> dict:
    """The averaged or the raw weights of a checkpoint.

    Where MMEngine's EMAHook was used, ``state_dict`` holds the averaged weights and
    ``ema_state_dict`` the raw ones.
    """
    averaged = 'ema_state_dict' in checkpoint
    if kind == 'ema' and not averaged:
        raise CheckpointError(f'checkpoint {path} has no averaged weights: it was not trained with EMAHook')
    if kind == 'raw' and averaged:
        # Buffers that EMAHook did not swap are in state_dict alone.
        raw = get_state_dict(dict(state_dict=checkpoint['ema_state_dict']), path)
        return {key: raw.get(key, value) for key, value in get_state_dict(checkpoint, path).items()}
    return get_state_dict(checkpoint, path)


def publish(path: str, out: str, kind: str) -> str:
    """Write the slim file; returns its path."""
    checkpoint = read_checkpoint(path)
    # Clones: a view would drag the whole storage it looks into along.
    weights = {key: value.clone() for key, value in select_weights(checkpoint, kind, path).items()}
    meta = get_meta(checkpoint)
    slim = dict(state_dict=weights, meta={key: to_plain(meta[key]) for key in KEPT_META if key in meta})
    stem, suffix = os.path.splitext(out)
    suffix = suffix if suffix == '.safetensors' else '.pth'
    content = to_bytes(slim, suffix)
    published = f'{stem}-{hashlib.sha256(content).hexdigest()[:8]}{suffix}'
    with whole_file(published) as temporary:
        Path(temporary).write_bytes(content)
    return published


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('input', metavar='IN', help='training checkpoint')
    parser.add_argument(
        'output', metavar='OUT', help='name of the file to write, without the hash (.pth, .safetensors)'
    )
    parser.add_argument(
        '--weights',
        choices=('auto', 'ema', 'raw'),
        default='auto',
        help='averaged weights, raw weights, or (auto) the averaged ones if there are any',
    )
    args = parser.parse_args()
    with user_errors():
        print(f'wrote {publish(args.input, args.output, args.weights)}')


if __name__ == '__main__':
    main()
