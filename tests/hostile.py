"""Checkpoints that someone made to do harm, or that damage has made so."""

import json
import os
import pickle
import struct
import zipfile

import numpy as np
import torch


class Code:
    """Runs when it is unpickled, if anything runs."""

    def __init__(self, proof):
        self.proof = str(proof)

    def __reduce__(self):
        return os.mkdir, (self.proof,)


def nested(levels, width):
    inner = ['x'] * width
    for _ in range(levels):
        inner = [inner] * width
    return inner


def circle():
    inner = {}
    inner['itself'] = inner
    return inner


def good(model):
    """What a training saved, as far as tools read it."""
    run = dict(processes=1, epoch_length=4, settings={})
    generator = torch.Generator().manual_seed(0)
    weights = {k: torch.rand(v.shape, generator=generator).to(v.dtype) for k, v in model.state_dict().items()}
    hub = dict(log_scalars={}, runtime_info={}, resumed_keys={})
    meta = dict(epoch=1, iter=4, seed=0, run=run, dataset_meta=dict(classes=list('abcdefghij')))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9).state_dict()
    return dict(state_dict=weights, meta=meta, optimizer=optimizer, param_schedulers=[], message_hub=hub)


def changed(**values):
    """Checkpoints that differ in entries: ``meta__epoch`` is that of ``meta``."""

    def make(checkpoint):
        for key, value in values.items():
            *parents, last = key.split('__')
            target = checkpoint
            for parent in parents:
                target[parent] = target = dict(target[parent])
            target[last] = value(checkpoint) if callable(value) else value
        return checkpoint

    return make


def of_weights(change):
    return changed(state_dict=lambda checkpoint: {k: change(v) for k, v in checkpoint['state_dict'].items()})


CONTENTS = {
    'no_weights': lambda checkpoint: dict(meta={}),
    'a_list': lambda checkpoint: [1, 2],
    'a_number': lambda checkpoint: 7,
    'nested': changed(meta__x=nested(10, 10)),
    'deep': changed(meta__x=nested(300, 1)),
    'circle': changed(meta__x=circle()),
    'huge_view': of_weights(lambda w: torch.zeros(1).expand(10**10)),
    'nan': of_weights(lambda w: torch.full_like(w, float('nan')) if w.is_floating_point() else w),
    'other_shapes': of_weights(lambda w: w.flatten()[:0]),
    'complex': of_weights(lambda w: w.to(torch.complex64)),
    'sparse': of_weights(lambda w: w.flatten().to_sparse()),
    'quantized': of_weights(lambda w: torch.quantize_per_tensor(w.float(), 0.1, 0, torch.qint8)),
    'meta_device': of_weights(lambda w: w.to('meta')),
    'text_weights': of_weights(lambda w: 'x'),
    'numbered_weights': changed(state_dict=lambda checkpoint: dict(enumerate(checkpoint['state_dict'].values()))),
    'weights_are_text': changed(state_dict='x'),
}
"""Those that no tool can use."""
OF_TRAINING = {
    'meta_is_text': changed(meta='x'),
    'endless_epoch': changed(meta__epoch=10**9, meta__iter=10**10),
    'negative_epoch': changed(meta__epoch=-1),
    'optimizer_is_text': changed(optimizer='x'),
    'optimizer_of_others': changed(optimizer=dict(state={0: dict(x=1)}, param_groups=[dict(params=[0])])),
    'no_optimizer_state': changed(optimizer={}),
    'scheduler_is_text': changed(param_schedulers='x'),
    'schedulers_of_others': changed(param_schedulers=[{}, {}, {}]),
    'hub_of_others': changed(message_hub=dict(log_scalars='x', runtime_info=7, resumed_keys=[])),
    'random_state_of_others': changed(
        random_states=[dict(python='x', numpy=[], torch=torch.ones(2), cuda=None, buffers=[], gradients={})]
    ),
    'run_of_others': changed(meta__run=dict(processes='x', epoch_length=-3, settings=7)),
    'epoch_of_no_length': changed(meta__run=dict(processes=1, epoch_length=0, settings={})),
    'names_are_text': changed(meta__dataset_meta='x'),
    'names_are_a_number': changed(meta__dataset_meta=dict(classes=7, palette='x')),
    'names_are_few': changed(meta__dataset_meta=dict(classes=['a'], palette=[7])),
    'seed_of_others': changed(meta__seed=-(10**30)),
}
"""Those whose weights are sound, while a training cannot go on from them, or can without what is wrong."""
LEFT_OUT = set(
    [
        'schedulers_of_others',
        'random_state_of_others',
        'run_of_others',
        'epoch_of_no_length',
        'names_are_text',
        'names_are_a_number',
        'names_are_few',
        'seed_of_others',
    ]
)
"""Of :data:`OF_TRAINING` those that a training goes on from."""


def write_all(folder, model, proof):
    """Write them; returns the paths of those that no tool can use, and of those of :data:`OF_TRAINING`."""
    written = []
    for name, make in [*CONTENTS.items(), *OF_TRAINING.items()]:
        torch.save(make(good(model)), folder / f'{name}.pth')
    checkpoint = good(model)
    torch.save(dict(checkpoint, meta=Code(proof)), folder / 'code.pth')
    torch.save(dict(checkpoint, meta=Code(proof)), folder / 'old_code.pth', _use_new_zipfile_serialization=False)
    (folder / 'pickle.pth').write_bytes(pickle.dumps(Code(proof)))
    (folder / 'evaluated.pth').write_bytes(b"cbuiltins\neval\n(Vopen('x', 'w')\ntR.")
    torch.save(checkpoint, folder / 'good.pth')
    content = (folder / 'good.pth').read_bytes()
    (folder / 'half.pth').write_bytes(content[: len(content) // 2])
    (folder / 'begun.pth').write_bytes(content[:100])
    (folder / 'without_its_beginning.pth').write_bytes(content[1000:])
    (folder / 'empty.pth').touch()
    (folder / 'text.pth').write_text('weights')
    (folder / 'folder.pth').mkdir()
    os.mkfifo(folder / 'pipe.pth')
    (folder / 'endless.pth').symlink_to('/dev/zero')
    (folder / 'circle_of_links.pth').symlink_to(folder / 'circle_of_links.pth')
    with zipfile.ZipFile(folder / 'good.pth') as source, zipfile.ZipFile(folder / 'bomb.pth', 'w') as bomb:
        for name in source.namelist():
            zeros = bytes(2**26) if name.endswith('data/0') else source.read(name)
            bomb.writestr(name, zeros, zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(folder / 'good.pth') as source, zipfile.ZipFile(folder / 'short_weights.pth', 'w') as short:
        for name in source.namelist():
            short.writestr(name, b'' if '/data/' in name else source.read(name))
    write_safetensors(folder)
    for path in sorted(folder.iterdir()):
        if path.suffix in ('.pth', '.safetensors') and path.stem not in ('good', *OF_TRAINING):
            written.append(path)
    return written, [folder / f'{name}.pth' for name in OF_TRAINING]


def write_safetensors(folder):
    def write(name, header, data=b'', length=None):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        length = len(text) if length is None else length
        (folder / f'{name}.safetensors').write_bytes(struct.pack('<Q', length) + text + data)

    def entry(shape, begin, end, dtype='F32'):
        return {'w': dict(dtype=dtype, shape=shape, data_offsets=[begin, end])}

    write('endless_header', {}, length=2**62)
    write('no_json', b'x' * 100)
    write('deep_header', b'[' * 10**6)
    write('huge_shape', entry([2**40, 2**40], 0, 8), bytes(8))
    write('negative', entry([-1], 0, 4), bytes(4))
    write('beyond_the_end', entry([1000], 0, 4000), bytes(8))
    write('unknown_type', entry([1], 0, 4, 'PICKLE'), bytes(4))
    write('nothing_in_it', {})
    write('nan_weights', entry([2], 0, 8), np.full(2, np.nan, np.float32).tobytes())
    write('odd_meta', {'__metadata__': {'scopevit': '[' * 10**5}, **entry([1], 0, 4)}, bytes(4))
