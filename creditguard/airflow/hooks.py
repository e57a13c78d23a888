"""`ApiMallHook`: an Airflow connection of type `apimall` as a place where a balance is read."""

from __future__ import annotations

from asyncio import to_thread
from typing import TYPE_CHECKING, Any, cast

from creditguard.airflow.sdk import BaseHook

if TYPE_CHECKING:
    from creditguard.rules.values import Balance
    from creditguard.sources.apimall import ApiMall


class ApiMallHook(BaseHook):
    """The balance of the API Mall account of a connection.

    The connection's password is the key; its host the gateway, as a URL or as a host name (with `schema` and `port`; the public
    gateway if left out). The extra field `account` names a pool that several keys draw on.

    conn_id     the connection; None for the key and the gateway of the environment. apimall_conn_id is another name for it

    A connection that cannot be used is a ConfigurationError, which names its field.
    """

    conn_name_attr = "conn_id"
    default_conn_name = "apimall_default"
    conn_type = "apimall"
    hook_name = "API Mall"

    def __init__(self, conn_id: str | None = default_conn_name, *, apimall_conn_id: str | None = None) -> None:
        super().__init__()
        self.conn_id = apimall_conn_id or conn_id
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
        from creditguard.airflow.masking import mask, mask_settings
        from creditguard.guarding.wiring import source_for
        from creditguard.rules.secret import SecretText
        from creditguard.sources.apimall import shared

        environment = settings.current()
        mask_settings(environment)
        if connection is None:
            return cast("ApiMall", source_for(environment))
        mask(connection.password)
        _check(connection, f"connection {self.conn_id!r}")
        self.account = connection.extra_dejson.get("account") or None
        return shared(SecretText(connection.password), base_url_of(connection) or environment.base_url)


def _check(connection: Any, name: str) -> None:
    """Raise ConfigurationError, which names the field, for what cannot be meant. No value is ever shown: it may be the key."""
    from creditguard.errors import ConfigurationError
    from creditguard.sources.apimall_checks import check_base_url, check_key

    def wrong(why: str) -> ConfigurationError:
        return ConfigurationError(f"{name} {why}", name)

    if connection.conn_type not in {"apimall", "", None}:
        raise wrong(f"is of type {connection.conn_type!r}; it must be one of type API Mall ('apimall')")
    for field in ("schema", "login", "password"):
        if "://" in (getattr(connection, field) or ""):
            raise wrong(f"has a URL in its {field}; the gateway's URL belongs in its host, the key in its password")
    if not connection.password and connection.login:
        raise wrong("has something in its login; the API Mall key belongs in its password")
    if not connection.password:
        raise ConfigurationError(f"the password of {name} must hold the API Mall key", name)
    check_key(connection.password, f"the password of {name}")
    url = base_url_of(connection)
    if url:
        check_base_url(url, f"the host of {name}")
    account = connection.extra_dejson.get("account")
    if account is not None and not isinstance(account, str):
        raise wrong("must have text in its extra field 'account'")
    if account and "://" in account:
        raise wrong("has a URL in its extra field 'account'; the gateway's URL belongs in its host")


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


def _timeout() -> float:
    from creditguard import settings

    return settings.current().timeout
