"""Reading checkpoints, and matching them to a model."""

import argparse
import hashlib
import os
import pickle
import re
import sys
import warnings
import zipfile

import pytest
import torch
from mmengine.logging import HistoryBuffer

from helpers import ROOT
from reference.weights import fill
from scopevit.models import ScopeViT
from scopevit.utils.checkpoint import (
    CheckpointError,
    get_state_dict,
    load_backbone,
    read_checkpoint,
    require_fit,
    save_checkpoint,
    select_weights,
    to_plain,
)

NARROW = dict(embed_dims=(16, 32, 32, 64), depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 4))


def test_reads_what_mmengine_writes(tmp_path):
    import numpy as np

    buffer = HistoryBuffer()
    for value in (3.0, 1.0):
        buffer.update(value)
    dtypes = [np.arange(2, dtype=code) for code in ('u1', 'i4', 'i8', 'f4', 'f8', '?')]
    torch.save(dict(message_hub=dict(loss=buffer), scalar=np.float64(2.5), arrays=dtypes), tmp_path / 'c.pth')
    checkpoint = read_checkpoint(tmp_path / 'c.pth')
    assert checkpoint['message_hub']['loss'].mean() == 2.0
    assert checkpoint['scalar'] == 2.5
    assert [a.dtype for a in checkpoint['arrays']] == [a.dtype for a in dtypes]


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Lookup:
    """Asks for an attribute from which other modules could be reached."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


def test_pickled_objects_are_refused_and_not_executed(tmp_path):
    torch.save(dict(state_dict={}, extra=Evil(str(tmp_path / 'executed'))), tmp_path / 'c.pth')
    with pytest.raises(CheckpointError, match='refused and nothing was executed'):
        read_checkpoint(tmp_path / 'c.pth')
    torch.save(dict(state_dict={}, extra=Lookup()), tmp_path / 'c.pth')
    with pytest.raises(CheckpointError, match='refused and nothing was executed'):
        read_checkpoint(tmp_path / 'c.pth')
    with open(tmp_path / 'plain.pkl', 'wb') as file:
        pickle.dump(Evil(str(tmp_path / 'executed')), file)
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / 'plain.pkl')
    assert not (tmp_path / 'executed').exists()


@pytest.mark.parametrize('keep', [0, 10, 1000, -100])
def test_truncated_files_are_named(keep, tmp_path):
    torch.save(ScopeViT(NARROW).state_dict(), tmp_path / 'c.pth')
    content = (tmp_path / 'c.pth').read_bytes()
    (tmp_path / 'c.pth').write_bytes(content[:keep])
    with pytest.raises(CheckpointError, match=r'c\.pth is truncated or not a PyTorch file'):
        read_checkpoint(tmp_path / 'c.pth')


DAMAGED = (b'a', b'hello world\n', b'0', b'.', b'(l', b'\x80\x02.', b'\x80\x02a', b'\x80\x7f', b'\xff\xfe\x00', b'PK')


@pytest.mark.parametrize('content', DAMAGED)
def test_of_damaged_content_no_error_of_pythons_is_told(content, tmp_path):
    (tmp_path / 'c.pth').write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(tmp_path / 'c.pth')
    says = str(error.value).removeprefix(
        f'checkpoint {tmp_path}/c.pth is truncated or not a PyTorch file; use another one'
    )
    assert not re.search('Error|list|stack|index', says), says


def test_what_the_system_says_of_a_file_is_told(tmp_path, monkeypatch):
    def load(*words, **options):
        raise OSError(5, 'Input/output error')

    (tmp_path / 'c.pth').touch()
    monkeypatch.setattr(torch, 'load', load)
    with pytest.raises(CheckpointError, match=r'cannot be read \(Input/output error\)$'):
        read_checkpoint(tmp_path / 'c.pth')


@pytest.mark.parametrize(
    ('path', 'says'),
    [
        ('hf://name/x.pth', ': MMEngine reads no such address; download it and name the file'),
        ('file:///x.pth', ': MMEngine reads no such address'),
        ('http://a/http://b/x.pth', ': MMEngine reads no such address'),
        ('s3://bucket/x.pth', r' \(.*petrel_client'),
        ('http://127.0.0.1:9/x.pth', r' \(.*refused'),
    ],
)
def test_address_that_cannot_be_read_is_told_with_the_reason(path, says):
    with pytest.raises(CheckpointError, match=f'^checkpoint {path} cannot be fetched{says}'):
        read_checkpoint(path)


def test_missing_and_empty_checkpoints_are_named(tmp_path):
    with pytest.raises(CheckpointError, match='does not exist'):
        read_checkpoint(tmp_path / 'c.pth')
    with pytest.raises(CheckpointError, match='is a folder; name a file in it'):
        read_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match='no weights; it has: epoch'):
        get_state_dict(dict(epoch=3), 'c.pth')
    torch.save([1], tmp_path / 'list.pth')
    with pytest.raises(CheckpointError, match='holds a list'):
        read_checkpoint(tmp_path / 'list.pth')


@pytest.mark.parametrize('wrap', [dict, lambda w: dict(state_dict=w), lambda w: dict(model=w, epoch=1)])
@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.backbone.'])
def test_load_backbone_from_any_nesting(wrap, prefix, tmp_path):
    source = fill(ScopeViT(NARROW))
    weights = {f'{prefix}{key}': value for key, value in source.state_dict().items()}
    if prefix:
        weights['head.fc.weight'] = torch.zeros(10, 64)
    torch.save(wrap(weights), tmp_path / 'c.pth')
    target = ScopeViT(NARROW)
    match = load_backbone(target, tmp_path / 'c.pth')
    assert len(match.matched) == len(target.state_dict())
    assert '0 missing, 0 unexpected' in str(match)
    for a, b in zip(target.parameters(), source.parameters()):
        assert torch.equal(a, b)


RAW, AVERAGED = torch.zeros(2), torch.ones(2)
WITH_AVERAGE = {
    'mmengine': dict(state_dict=dict(w=AVERAGED), ema_state_dict={'module.w': RAW, 'steps': torch.tensor(1)}),
    'timm': dict(state_dict=dict(w=RAW), state_dict_ema=dict(w=AVERAGED), epoch=3),
    'model_ema': dict(model=dict(w=RAW), model_ema={'module.w': AVERAGED}),
}


@pytest.mark.parametrize('form', WITH_AVERAGE)
def test_averaged_weights_come_first_and_raw_ones_if_asked_for_in_every_form(form):
    checkpoint = WITH_AVERAGE[form]
    assert torch.equal(get_state_dict(checkpoint, 'c.pth')['w'], AVERAGED)  # which is what models load
    for kind, expected in (('auto', AVERAGED), ('ema', AVERAGED), ('raw', RAW)):
        selected = select_weights(checkpoint, kind, 'c.pth')
        assert list(selected) == ['w']
        assert torch.equal(selected['w'], expected)


def test_weights_of_a_kind_that_a_checkpoint_lacks_are_refused():
    for checkpoint in (dict(state_dict=dict(w=RAW), state_dict_ema=None), dict(w=RAW)):
        assert torch.equal(select_weights(checkpoint, 'raw', 'c.pth')['w'], RAW)
        with pytest.raises(CheckpointError, match='has no averaged weights'):
            select_weights(checkpoint, 'ema', 'c.pth')
    for other in dict(state_dict_ema={}), dict(model_ema=dict(module=dict(w=AVERAGED), updates=3)):  # of another class
        assert torch.equal(get_state_dict(dict(state_dict=dict(w=RAW), **other), 'c.pth')['w'], RAW)
    odd = dict(state_dict={'_orig_mod.w': RAW}, state_dict_ema=dict(w=AVERAGED))
    assert list(select_weights(odd, 'raw', 'c.pth')) == ['_orig_mod.w']  # nothing averaged among them
    alone = dict(state_dict_ema=dict(w=AVERAGED), epoch=3)
    assert torch.equal(select_weights(alone, 'ema', 'c.pth')['w'], AVERAGED)
    with pytest.raises(CheckpointError, match='has averaged weights alone'):
        select_weights(alone, 'raw', 'c.pth')


def test_versions_of_layers_stay_with_the_weights(tmp_path):
    """A layer may load weights of an older version in another way."""
    torch.save(dict(model=torch.nn.BatchNorm2d(3).state_dict()), tmp_path / 'c.pth')
    weights = get_state_dict(read_checkpoint(tmp_path / 'c.pth'), 'c.pth')
    assert weights._metadata['']['version'] == 2


def test_later_stages_may_be_left_over(tmp_path):
    torch.save(ScopeViT(NARROW).state_dict(), tmp_path / 'c.pth')
    match = load_backbone(ScopeViT(NARROW, out_indices=(0, 1)), tmp_path / 'c.pth')
    assert match.unexpected
    assert all(key.startswith(('stages.2.', 'stages.3.')) for key in match.unexpected)


@pytest.mark.parametrize(
    ('source', 'target', 'says'),
    [
        ('xtiny', 'tiny', 'stages.0.blocks.1'),  # missing
        ('tiny', 'xtiny', 'stages.0.blocks.1'),  # unexpected
        ('small', 'xtiny', 'of another shape'),
    ],
)
def test_another_arch_is_an_error_and_changes_nothing(source, target, says, tmp_path):
    torch.save(ScopeViT(source).state_dict(), tmp_path / 'c.pth')
    model = ScopeViT(target)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=says):
        load_backbone(model, tmp_path / 'c.pth')
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_nothing_in_common_is_an_error(tmp_path):
    torch.save({'encoder.weight': torch.ones(3)}, tmp_path / 'c.pth')
    with pytest.raises(CheckpointError, match='0 matched'):
        load_backbone(ScopeViT(NARROW), tmp_path / 'c.pth')


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        (dict(in_channels=1), 'stages.0.patch_embed.0.weight'),
        (dict(arch=dict(NARROW, depths=(1, 1, 3, 1))), 'stages.2.blocks.2'),  # missing
        (dict(arch=dict(NARROW, depths=(1, 1, 1, 1))), 'stages.2.blocks.1'),  # left over
    ],
)
def test_check_fits_names_what_differs(options, says, tmp_path):
    torch.save(dict(state_dict=ScopeViT(NARROW).state_dict()), tmp_path / 'c.pth')
    require_fit(ScopeViT(NARROW), tmp_path / 'c.pth')
    with pytest.raises(CheckpointError, match='another arch.*\n(.*\n)*.*' + says):
        require_fit(ScopeViT(**{'arch': NARROW, **options}), tmp_path / 'c.pth')


def test_check_fits_lets_a_model_adapt_weights(tmp_path):
    """Other toolboxes' models resize or rename weights while they load, and leave buffers over."""

    class Adapting(torch.nn.Linear):
        def _load_from_state_dict(self, state_dict, prefix, *args):
            state_dict[f'{prefix}weight'] = state_dict[f'{prefix}weight'][:3]
            super()._load_from_state_dict(state_dict, prefix, *args)

    weights = dict(weight=torch.ones(5, 2), bias=torch.zeros(3), old_buffer=torch.zeros(1))
    torch.save(weights, tmp_path / 'c.pth')
    require_fit(Adapting(2, 3), tmp_path / 'c.pth')


def test_saving_never_replaces_a_file(tmp_path):
    (tmp_path / 'c.pth').write_text('mine')
    with pytest.raises(RuntimeError, match='exists already'):
        save_checkpoint({}, tmp_path / 'c.pth')
    assert (tmp_path / 'c.pth').read_text() == 'mine'
    with pytest.raises(RuntimeError, match='cannot write'):
        save_checkpoint({}, tmp_path / 'c.pth' / 'below_a_file.pth')
    assert sorted(os.listdir(tmp_path)) == ['c.pth']


def test_to_plain_needs_no_pickling():
    import numpy as np

    value = dict(classes=('a', 'b'), sigmas=np.ones(2), score=np.float32(1), when=ROOT, none=None)
    assert to_plain(value) == dict(classes=['a', 'b'], sigmas=[1.0, 1.0], score=1.0, when=str(ROOT), none=None)


def nested(levels, width=10):
    """A few lists that stand for width ** levels."""
    inner = ['x'] * width
    for _ in range(levels):
        inner = [inner] * width
    return inner


def deep(levels):
    inner = []
    for _ in range(levels):
        inner = [inner]
    return inner


HOSTILE = {
    'few lists for very many': lambda: dict(state_dict=dict(w=torch.ones(2)), meta=dict(x=nested(10))),
    'depth': lambda: dict(state_dict=dict(w=torch.ones(2)), meta=dict(x=deep(300))),
    'one value for very many': lambda: dict(state_dict=dict(w=torch.ones(1).expand(10**9))),
}


@pytest.mark.parametrize('content', HOSTILE)
def test_content_that_is_more_than_it_looks_is_refused(content, tmp_path):
    torch.save(HOSTILE[content](), tmp_path / 'c.pth')
    with pytest.raises(CheckpointError, match='is refused'):
        read_checkpoint(tmp_path / 'c.pth')


def test_compressed_file_is_refused_before_it_fills_the_memory(tmp_path):
    torch.save(dict(w=torch.zeros(10**6)), tmp_path / 'c.pth')
    with zipfile.ZipFile(tmp_path / 'c.pth') as source, zipfile.ZipFile(tmp_path / 'bomb.pth', 'w') as target:
        for name in source.namelist():
            target.writestr(name, source.read(name), zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match='compressed'):
        read_checkpoint(tmp_path / 'bomb.pth')


def test_changed_bit_and_wrong_hash_are_noticed(tmp_path, capsys):
    torch.save(dict(w=torch.ones(1000)), tmp_path / 'c.pth')
    content = bytearray((tmp_path / 'c.pth').read_bytes())
    published = tmp_path / f'c-{hashlib.sha256(content).hexdigest()[:8]}.pth'
    published.write_bytes(content)
    assert read_checkpoint(published)['w'].sum() == 1000
    content[content.index(bytes.fromhex('0000803f') * 8) + 2] ^= 1
    published.write_bytes(content)
    with pytest.raises(CheckpointError, match='is damaged'):
        read_checkpoint(published)
    assert 'as its name says' in capsys.readouterr().err
    (tmp_path / 'c.pth').write_bytes(content)
    with pytest.raises(CheckpointError, match='checksum of its part .* is wrong'):
        read_checkpoint(tmp_path / 'c.pth')
    save_checkpoint(dict(state_dict=dict(w=torch.ones(1000)), meta={}), tmp_path / 'c-01234567.safetensors')
    with pytest.raises(CheckpointError, match='as its name says: it was changed'):  # it has no other checksum
        read_checkpoint(tmp_path / 'c-01234567.safetensors')


def test_a_name_with_another_hash_is_told_once_also_where_warnings_are_not_shown(tmp_path, capsys):
    path = tmp_path / 'c-01234567.pth'
    torch.save(dict(w=torch.ones(4)), path)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert all(read_checkpoint(path)['w'].sum() == 4 for _ in range(2))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'warning: {path}: its SHA-256 begins with')


def test_a_file_without_checksums_is_refused_if_the_hash_of_its_name_is_another(tmp_path):
    torch.save(dict(w=torch.ones(1000)), tmp_path / 'c.pth', _use_new_zipfile_serialization=False)
    content = bytearray((tmp_path / 'c.pth').read_bytes())
    published = tmp_path / f'c-{hashlib.sha256(content).hexdigest()[:8]}.pth'
    published.write_bytes(content)
    assert read_checkpoint(published)['w'].sum() == 1000
    content[-100] ^= 1
    published.write_bytes(content)
    with pytest.raises(CheckpointError, match='as its name says: it was changed'):
        read_checkpoint(published)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_no_numbers_are_named_and_refused_unless_asked_for(value, tmp_path, monkeypatch):
    checkpoint = dict(state_dict=dict(fine=torch.ones(2), broken=torch.tensor([1, value]), count=torch.tensor(3)))
    with pytest.raises(CheckpointError, match=r'no finite numbers \(broken; 1 of 3\)'):
        get_state_dict(checkpoint, 'c.pth')
    monkeypatch.setenv('SCOPEVIT_ALLOW_NON_FINITE', '1')
    assert len(get_state_dict(checkpoint, 'c.pth')) == 3


def test_safetensors_are_read_and_written(tmp_path, monkeypatch):
    backbone = ScopeViT(NARROW)
    meta = dict(epoch=3, dataset_meta=dict(classes=['a', 'b']))
    save_checkpoint(dict(state_dict=backbone.state_dict(), meta=meta), tmp_path / 'c.safetensors')
    assert read_checkpoint(tmp_path / 'c.safetensors')['meta'] == meta
    other = ScopeViT(NARROW)
    load_backbone(other, tmp_path / 'c.safetensors')
    assert all(torch.equal(a, b) for a, b in zip(backbone.parameters(), other.parameters()))
    (tmp_path / 'broken.safetensors').write_bytes((tmp_path / 'c.safetensors').read_bytes()[:1000])
    with pytest.raises(CheckpointError, match='truncated'):
        read_checkpoint(tmp_path / 'broken.safetensors')
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    with pytest.raises(CheckpointError, match='pip install safetensors'):
        read_checkpoint(tmp_path / 'c.safetensors')


def test_what_another_library_took_from_the_safe_objects_is_read_again(tmp_path):
    """timm allows options for each load by itself, and for nothing else after it."""
    torch.save(dict(state_dict=dict(a=torch.ones(2)), args=argparse.Namespace(lr=1)), tmp_path / 'x.pth')
    with torch.serialization.safe_globals([argparse.Namespace]):
        pass
    assert read_checkpoint(tmp_path / 'x.pth')['args'].lr == 1
