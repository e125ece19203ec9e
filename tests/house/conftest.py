from tests.support.house import house, providers

__all__ = ["house", "providers"]
