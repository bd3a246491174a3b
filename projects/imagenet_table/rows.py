"""The table's rows: what it states of each model, and where the model comes from."""

import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from scopevit.utils.errors import UserError

PROJECT = Path(__file__).resolve().parent
ROOT = PROJECT.parents[1]


@dataclass(frozen=True)
class Row:
    """A model of the table.

    Attributes:
        config: Its ImageNet config, relative to the repository.
        library: Which one ships the model; 'here' for this project.
        model: Its name there.
        parameters: Millions of parameters, as the table states them.
        macs: Billions of multiply-accumulates for one image, as the table states them.
        top1: ImageNet-1K accuracy in percent; the paper's, not measured here.
        counted_parameters: What has to be counted.
        counted_macs: What has to be counted, to a thousandth.
        why_parameters: Why the stated parameters are not the counted ones rounded; ``{rest}`` is
            their number without those left out.
        why_macs: The same for multiply-accumulates.
        why_top1: How the paper came by its accuracy, where that is not training on ImageNet-1K's labels alone.
        left_out: A pattern of the names of parameters that the table's number does not count.
        other_mode: A second way to run the model, by name, and the option of its config that makes it so.
    """

    name: str
    config: str
    library: str
    model: str
    parameters: float
    macs: float
    top1: float
    counted_parameters: int
    counted_macs: int
    why_parameters: str = ''
    why_macs: str = ''
    why_top1: str = ''
    left_out: str | None = None
    other_mode: tuple[str, dict[str, object]] | None = None

    @property
    def size(self) -> int:
        """Height and width of its images."""
        return int(re.search(r'-(\d+)px$', Path(self.config).stem).group(1))

    @property
    def missing_library(self) -> str | None:
        """What must be installed beside the repository's own libraries, and is not."""
        optional = self.library in ('timm', 'transformers')
        return self.library if optional and importlib.util.find_spec(self.library) is None else None

    def load(self) -> Config:
        return Config.fromfile(ROOT / self.config)


def _config(name: str) -> str:
    return f'projects/imagenet_table/configs/{name}'


CUT_OFF = 'the table cuts digits off where it should round'
ROWS = (
    Row(
        name='Swin-2G',
        config=_config('swin-2g_8xb128-300e_in1k-224px.py'),
        library='mmpretrain',
        model='SwinTransformer of width 64',
        parameters=12.8,
        macs=2.0,
        top1=79.2,
        counted_parameters=12_764_388,
        counted_macs=2_030_331_904,
    ),
    Row(
        name='DeiT-S',
        config=_config('deit-small_8xb128-300e_in1k-224px.py'),
        library='mmpretrain',
        model='VisionTransformer, deit-small',
        parameters=22.1,
        macs=4.6,
        top1=79.8,
        counted_parameters=22_050_664,
        counted_macs=4_598_882_304,
    ),
    Row(
        name='PVT-Small',
        config=_config('pvt-small_8xb128-300e_in1k-224px.py'),
        library='transformers',
        model='PvtForImageClassification',
        parameters=24.5,
        macs=3.8,
        top1=79.8,
        counted_parameters=24_485_864,
        counted_macs=3_815_701_504,
    ),
    Row(
        name='P2T-T',
        config=_config('p2t-tiny_8xb128-300e_in1k-224px.py'),
        library='here',
        model='P2T',
        parameters=11.6,
        macs=1.8,
        top1=79.8,
        counted_parameters=11_590_840,
        counted_macs=1_788_868_608,
    ),
    Row(
        name='Shunted-T',
        config=_config('shunted-tiny_8xb128-300e_in1k-224px.py'),
        library='here',
        model='Shunted',
        parameters=11.5,
        macs=2.1,
        top1=79.8,
        counted_parameters=11_553_576,
        counted_macs=2_146_691_616,
        why_parameters=CUT_OFF,
    ),
    Row(
        name='EViT-S',
        config=_config('evit-small_8xb128-300e_in1k-256px.py'),
        library='here',
        model='EViT, keep rate 0.6',
        parameters=22.1,
        macs=3.5,
        top1=80.0,
        counted_parameters=22_073_704,
        counted_macs=3_487_651_584,
        other_mode=('tokens dropped, not fused', {'model.backbone.fuse_tokens': False}),
    ),
    Row(
        name='ConvNeXt V2-P',
        config=_config('convnext-v2-pico_8xb128-300e_in1k-224px.py'),
        library='mmpretrain',
        model='ConvNeXt, pico with GRN',
        parameters=9.1,
        macs=1.4,
        top1=80.3,
        counted_parameters=9_066_280,
        counted_macs=1_367_055_360,
        why_top1='its paper reaches this after FCMAE pre-training, without labels, on ImageNet-1K',
    ),
    Row(
        name='MobileViTv2-1.5',
        config=_config('mobilevit-v2-150_8xb128-300e_in1k-256px.py'),
        library='timm',
        model='mobilevitv2_150',
        parameters=10.6,
        macs=4.0,
        top1=80.4,
        counted_parameters=10_594_753,
        counted_macs=4_042_487_808,
    ),
    Row(
        name='CoaT Mini',
        config=_config('coat-mini_8xb128-300e_in1k-224px.py'),
        library='timm',
        model='coat_mini',
        parameters=10.0,
        macs=6.8,
        top1=80.8,
        counted_parameters=10_337_004,
        counted_macs=6_772_601_512,
        why_parameters='its paper rounds to whole millions, "10M"',
    ),
    Row(
        name='MPViT-XS',
        config=_config('mpvit-xsmall_8xb128-300e_in1k-224px.py'),
        library='here',
        model='MPViT',
        parameters=10.5,
        macs=2.9,
        top1=80.9,
        counted_parameters=10_573_448,
        counted_macs=2_950_215_936,
        why_parameters=CUT_OFF,
        why_macs=CUT_OFF,
    ),
    Row(
        name='CrossViT-S',
        config=_config('crossvit-small_8xb128-300e_in1k-224px.py'),
        library='timm',
        model='crossvit_small_240',
        parameters=26.7,
        macs=5.6,
        top1=81.0,
        counted_parameters=26_856_272,
        counted_macs=5_615_557_632,
        left_out='pos_embed|cls_token',
        why_parameters='without position embeddings and class tokens there are {rest:,}',
    ),
    Row(
        name='ScopeViT-T',
        config='configs/classification/scopevit-tiny_8xb128-300e_in1k-256px.py',
        library='scopevit',
        model='ScopeViT, tiny',
        parameters=7.4,
        macs=2.0,
        top1=81.1,
        counted_parameters=8_006_716,
        counted_macs=1_955_347_776,
        left_out=r'(^|\.)head\.',
        why_parameters='the table counts the backbone alone, {rest:,} parameters, in units of 2^20 (7.39)',
    ),
)


def choose_rows(names: Iterable[str]) -> list[Row]:
    """The rows of these names; all without any.

    Raises:
        UserError: If there is no such row, or the libraries of the rows are not installed.
    """
    names = list(names)
    unknown = set(names) - {row.name for row in ROWS}
    if unknown:
        raise UserError(f'no row is called {", ".join(sorted(unknown))}; rows: {", ".join(row.name for row in ROWS)}')
    rows = [row for row in ROWS if not names or row.name in names]
    missing = sorted({row.missing_library for row in rows} - {None})
    if missing:
        raise UserError(
            f'{" and ".join(missing)} must be installed: pip install --no-deps -r '
            f'{(PROJECT / "requirements.txt").relative_to(ROOT)}'
        )
    return rows
