"""`ApiMallHook`: an Airflow connection of type `apimall` as a place where a balance is read."""

from __future__ import annotations

from asyncio import to_thread
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

if TYPE_CHECKING:
    from creditguard.rules.values import Balance
    from creditguard.sources.apimall import ApiMall


class ApiMallHook(BaseHook):
    """The balance of the API Mall account of a connection.

    The connection's password is the key; its host the gateway, as a URL or as a host name (with `schema` and `port`; the public
    gateway if left out). The extra field `account` names a pool that several keys draw on.

    conn_id     the connection; None for the key and the gateway of the environment
    """

    conn_name_attr = "conn_id"
    default_conn_name = "apimall_default"
    conn_type = "apimall"
    hook_name = "API Mall"

    def __init__(self, conn_id: str | None = default_conn_name) -> None:
        super().__init__()
        self.conn_id = conn_id
        self.account: str | None = None
        """The connection's name for the account, once `get_conn` has been called."""
        self._source: ApiMall | None = None

    @staticmethod
    def get_ui_field_behaviour() -> dict[str, Any]:
        """The connection form, for Airflow before 3.2."""
        from creditguard.airflow.provider import UI_FIELD_BEHAVIOUR

        return {name.replace("-", "_"): value for name, value in UI_FIELD_BEHAVIOUR.items()}

    def get_conn(self) -> ApiMall:
        """The source, for `guard(source=...)`. Reads nothing."""
        if self._source is None:
            self._source = self._from(None if self.conn_id is None else self.get_connection(self.conn_id))
        return self._source

    async def aget_conn(self) -> ApiMall:
        """As `get_conn`, without blocking the event loop."""
        if self._source is None:
            self._source = self._from(None if self.conn_id is None else await self._aget_connection(self.conn_id))
        return self._source

    def get_balance(self) -> Balance:
        """The balance now. Raises BalanceUnavailable, by its subclasses."""
        source = self.get_conn()
        return source.read(_timeout())

    async def aget_balance(self) -> Balance:
        """As `get_balance`, without blocking the event loop."""
        from asyncio import to_thread

        source = await self.aget_conn()
        return await to_thread(source.read, _timeout())

    def test_connection(self) -> tuple[bool, str]:
        """For the button in the UI: whether the balance can be read, and what it is."""
        try:
            balance = self.get_balance()
        except Exception as error:
            return False, str(error) or type(error).__name__
        return True, f"{balance.amount:f} {balance.unit} left"

    async def _aget_connection(self, conn_id: str) -> Any:
        if hasattr(self, "aget_connection"):
            return await self.aget_connection(conn_id)
        return await to_thread(self.get_connection, conn_id)  # Airflow 2

    def _from(self, connection: Any) -> ApiMall:
        from creditguard import settings
        from creditguard.airflow.masking import mask
        from creditguard.errors import ConfigurationError

        environment = settings.current()
        if connection is None:
            key = environment.api_key.get_secret_value() if environment.api_key else None
            base_url = environment.base_url
            where = "APIMALL_API_KEY"
        else:
            key, base_url = connection.password, base_url_of(connection) or environment.base_url
            where = f"the password of connection {self.conn_id!r}"
            self.account = connection.extra_dejson.get("account") or None
        mask(key)
        if not key:
            raise ConfigurationError(f"{where} must hold the API Mall key", where)
        return _source(key, base_url)


def base_url_of(connection: Any) -> str | None:
    """The gateway's URL from host, port and schema; None if there is no host.

    http is for loopback addresses, and what they get if nothing else is said; the source refuses it elsewhere.
    """
    from creditguard.sources.apimall_checks import is_loopback

    host = (connection.host or "").strip()
    if not host or "://" in host:
        return host or None
    scheme = connection.schema or ("http" if is_loopback(host) else "https")
    port = f":{connection.port}" if connection.port else ""
    return f"{scheme}://{host}{port}"


@lru_cache(maxsize=64)
def _source(key: str, base_url: str) -> ApiMall:
    """One source per key and gateway in a process: a triggerer asks for the same ones for weeks."""
    from creditguard.sources.apimall import ApiMall

    return ApiMall(key, base_url)


def _timeout() -> float:
    from creditguard import settings

    return settings.current().timeout
