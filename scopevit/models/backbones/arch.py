"""The settings of a ScopeViT, and their rules."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..layers import SCOPES


def default_scope_heads(num_heads: int) -> tuple[int, int, int]:
    """How many of a stage's heads see the 7x7, 5x5 and 3x3 scope.

    Half of them (rounded up) are large, an eighth (at least one of three or more) small.
    2, 4, 8 and 16 heads give the paper's (1, 1, 0), (2, 1, 1), (4, 3, 1) and (8, 6, 2).
    """
    large = (num_heads + 1) // 2
    small = max(num_heads // 8, 1) if num_heads > 2 else 0
    return large, num_heads - large - small, small


@dataclass(frozen=True, kw_only=True)
class Arch:
    """What the stages of a ScopeViT consist of; sequences have one value for each stage.

    Args:
        embed_dims: Channels.
        depths: ScopeViT blocks; each is an MSSA and a GSDA block.
        num_heads: Heads of both kinds of attention.
        scope_heads: Heads of the 7x7, 5x5 and 3x3 scope; empty: :func:`default_scope_heads`.
        kv_strides: Stride of MSSA's keys and values; empty: 4, 2, then 1.
        grid_size: Largest side of GSDA's grid.
        mlp_ratio: Hidden channels of the MLPs, in units of the stage's.
        cpe_expansion: The same of the conditional positional encoding.

    Raises:
        TypeError: For a key that is missing or does not exist.
        ValueError: For a value that does not fit.
    """

    embed_dims: Sequence[int]
    depths: Sequence[int]
    num_heads: Sequence[int]
    scope_heads: Sequence[Sequence[int]] = ()
    kv_strides: Sequence[int] = ()
    grid_size: int = 8
    mlp_ratio: float = 4
    cpe_expansion: int = 4

    def __post_init__(self) -> None:
        for key in ('grid_size', 'mlp_ratio', 'cpe_expansion'):
            value = getattr(self, key)
            kinds = (int, float) if key == 'mlp_ratio' else int
            _require(isinstance(value, kinds) and value >= 1, f'{key} must be a number of at least 1, but is {value}')
        stages = len(self.depths) if isinstance(self.depths, (list, tuple)) else 0
        if not self.kv_strides:
            object.__setattr__(self, 'kv_strides', ((4, 2) + (1,) * stages)[:stages])
        for key in ('depths', 'embed_dims', 'num_heads', 'kv_strides'):
            self._check_stages(key, stages)
        if not self.scope_heads:
            object.__setattr__(self, 'scope_heads', tuple(default_scope_heads(heads) for heads in self.num_heads))
        self._check_heads()

    def _check_stages(self, key: str, stages: int) -> None:
        """A whole number of at least 1 for each stage becomes a tuple."""
        value = getattr(self, key)
        is_list = isinstance(value, (list, tuple)) and len(value) == stages > 0
        _require(
            is_list and all(isinstance(v, int) and v >= 1 for v in value),
            f'{key} must have one value per stage, as depths has, of at least 1, but is {value}',
        )
        object.__setattr__(self, key, tuple(value))

    def _check_heads(self) -> None:
        """Channels and scopes fit the heads."""
        given = self.scope_heads
        is_nested = isinstance(given, (list, tuple)) and all(isinstance(heads, (list, tuple)) for heads in given)
        _require(
            is_nested and len(given) == len(self.depths),
            f'scope_heads must have one value for each of {len(self.depths)} stages: {given}',
        )
        object.__setattr__(self, 'scope_heads', tuple(map(tuple, given)))
        for dim, heads, scopes in zip(self.embed_dims, self.num_heads, self.scope_heads):
            _require(
                dim >= 2 and dim % heads == 0,
                f'embed_dims {dim} is less than 2 or does not divide by num_heads {heads}',
            )
            _require(
                len(scopes) == len(SCOPES) and min(scopes) >= 0 and sum(scopes) == heads,
                f'scope_heads {scopes} must be the heads of the 7x7, 5x5 and 3x3 scope and add up to num_heads {heads}',
            )


def _require(is_met: bool, rule: str) -> None:
    if not is_met:
        raise ValueError(f'arch dict: {rule}')
