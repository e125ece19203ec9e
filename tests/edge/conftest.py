from tests.support.valkey import own_valkey, store_url, valkey_server

__all__ = ["own_valkey", "store_url", "valkey_server"]
