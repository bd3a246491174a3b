"""The table's rows: what it states of each model, and where the model comes from."""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, List, Optional

from mmengine.config import Config
from torch import nn

from scopevit.engine.errors import UserError

PROJECT = Path(__file__).resolve().parent
ROOT = PROJECT.parents[1]


@dataclass(frozen=True)
class Row:
    """A model of the table.

    Attributes:
        config: Its ImageNet config, relative to the repository.
        parameters: Millions of parameters, as the table states them.
        macs: Billions of multiply-accumulates for one image, as the table states them.
        top1: ImageNet-1K accuracy in percent; the paper's, not measured here.
        source: What builds the model.
        left_out: A pattern of the names of parameters that the table's number does not count.
        why: Why a stated number is not the measured one rounded; ``{rest}`` is the number of
            parameters without those left out.
    """

    name: str
    config: str
    parameters: float
    macs: float
    top1: float
    source: str
    left_out: Optional[str] = None
    why: str = ''

    @property
    def size(self) -> int:
        """Height and width of its images."""
        return int(re.search(r'-(\d+)px$', Path(self.config).stem).group(1))

    def load(self) -> Config:
        return Config.fromfile(ROOT / self.config)

    def explanation(self, model: nn.Module) -> str:
        kept = [p for name, p in model.named_parameters() if not (self.left_out and re.search(self.left_out, name))]
        return self.why.format(rest=sum(p.numel() for p in kept))


def _row(name: str, stem: str, size: int, *facts: object, **notes: str) -> Row:
    return Row(name, f'projects/imagenet_table/configs/{stem}_8xb128-300e_in1k-{size}px.py', *facts, **notes)


CUT_OFF = 'the table cuts digits off where it should round'
ROWS = (
    _row('Swin-2G', 'swin-2g', 224, 12.8, 2.0, 79.2, 'mmpretrain: SwinTransformer of width 64'),
    _row('DeiT-S', 'deit-small', 224, 22.1, 4.6, 79.8, 'mmpretrain: VisionTransformer, deit-small'),
    _row('PVT-Small', 'pvt-small', 224, 24.5, 3.8, 79.8, 'transformers: PvtForImageClassification'),
    _row('P2T-T', 'p2t-tiny', 224, 11.6, 1.8, 79.8, 'here: P2T'),
    _row('Shunted-T', 'shunted-tiny', 224, 11.5, 2.1, 79.8, 'here: Shunted', why=CUT_OFF),
    _row('EViT-S', 'evit-small', 256, 22.1, 3.5, 80.0, 'here: EViT, keep rate 0.6'),
    _row('ConvNeXt V2-P', 'convnext-v2-pico', 224, 9.1, 1.4, 80.3, 'mmpretrain: ConvNeXt, pico with GRN'),
    _row('MobileViTv2-1.5', 'mobilevit-v2-150', 256, 10.6, 4.0, 80.4, 'timm: mobilevitv2_150'),
    _row(
        *('CoaT Mini', 'coat-mini', 224, 10.0, 6.8, 80.8, 'timm: coat_mini'),
        why='its paper rounds to whole millions, "10M"',
    ),
    _row('MPViT-XS', 'mpvit-xsmall', 224, 10.5, 2.9, 80.9, 'here: MPViT', why=CUT_OFF),
    _row(
        *('CrossViT-S', 'crossvit-small', 224, 26.7, 5.6, 81.0, 'timm: crossvit_small_240'),
        left_out='pos_embed|cls_token',
        why='without position embeddings and class tokens there are {rest:,} parameters',
    ),
    Row(
        *('ScopeViT-T', 'configs/classification/scopevit-tiny_8xb128-300e_in1k-256px.py', 7.4, 2.0, 81.1),
        *('scopevit: ScopeViT, tiny', r'(^|\.)head\.'),
        'the table counts the backbone alone, {rest:,} parameters, in units of 2^20 (7.39)',
    ),
)


def choose_rows(names: Iterable[str]) -> List[Row]:
    """The rows of these names; all without any.

    Raises:
        UserError: If there is no such row, or the libraries of the rows are not installed.
    """
    names = list(names)
    unknown = set(names) - {row.name for row in ROWS}
    if unknown:
        raise UserError(f'no row is called {", ".join(sorted(unknown))}; rows: {", ".join(row.name for row in ROWS)}')
    rows = [row for row in ROWS if not names or row.name in names]
    needed = {library for row in rows for library in ('timm', 'transformers') if row.source.startswith(library)}
    missing = sorted(library for library in needed if importlib.util.find_spec(library) is None)
    if missing:
        raise UserError(
            f'{" and ".join(missing)} must be installed: pip install --no-deps -r '
            f'{(PROJECT / "requirements.txt").relative_to(ROOT)}'
        )
    return rows
