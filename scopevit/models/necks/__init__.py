from .level_adapter import LevelAdapter

__all__ = ['LevelAdapter']
