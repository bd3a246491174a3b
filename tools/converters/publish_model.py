"""Write a slim copy of a training checkpoint: weights and plain facts, with a hash in its name.

    python tools/converters/publish_model.py work_dirs/x/epoch_300.pth scopevit-tiny.pth

gives scopevit-tiny-<first 8 digits of the file's SHA-256>.pth, which torch.load reads with
weights_only=True and nothing else allowed.
"""

import hashlib
import os

from scopevit.utils.arguments import add_arguments, tool_parser
from scopevit.utils.errors import user_errors
from scopevit.utils.files import require_writable_file, write_whole


@user_errors()
def main() -> None:
    parser = tool_parser(__doc__)
    add_arguments(parser, 'checkpoint', help='checkpoint of a training')
    add_arguments(parser, 'out', help='file to write, without the hash (.pth, .safetensors)')
    add_arguments(parser, '--weights')
    args = parser.parse_args()
    require_writable_file(args.out, 'OUT')

    from scopevit.utils.checkpoint import read_checkpoint, select_weights, slim_meta, to_bytes

    checkpoint = read_checkpoint(args.checkpoint)
    selected = select_weights(checkpoint, args.weights, args.checkpoint)
    # Clones: a view would drag the whole storage it looks into along.
    weights = {key: value.clone() for key, value in selected.items()}
    stem, suffix = os.path.splitext(args.out)
    suffix = suffix if suffix == '.safetensors' else '.pth'
    content = to_bytes(dict(state_dict=weights, meta=slim_meta(checkpoint)), suffix)
    published = f'{stem}-{hashlib.sha256(content).hexdigest()[:8]}{suffix}'
    write_whole(published, content)
    print(f'wrote {published}')


if __name__ == '__main__':
    main()
