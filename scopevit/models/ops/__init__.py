"""How what the layers say is computed fast, and mmcv's operators where mmcv was installed without them.

Layers call ``attention``, ``dilated_attention``, ``depthwise``, ``linear``, ``rows``, ``positions`` and ``checkpoint``;
``calls`` says when a fast form may be taken, ``gpu`` has those in Triton.
"""

from ...utils.errors import UserError
from . import mmcv_finder

__all__ = ['MissingOperator', 'mmcv_finder']


class MissingOperator(UserError):
    """An operator that only a compiled mmcv has."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"mmcv's operator {name} needs a compiled mmcv, which is not installed: python -m scopevit install-mmcv"
        )
        self.name = name
