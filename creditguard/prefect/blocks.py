"""The Prefect block that keeps an API Mall key: encrypted on Prefect's server, masked wherever it is shown."""

from __future__ import annotations

from asyncio import to_thread
from functools import lru_cache
from typing import Any, ClassVar

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr

from creditguard import settings as _settings
from creditguard.prefect.guards import guard
from creditguard.rules.values import Balance
from creditguard.sources.apimall import ApiMall


class ApiMallCredentials(Block):  # type: ignore[misc,unused-ignore]
    """A key of API Mall, for guards in flows.

        credentials = ApiMallCredentials.load("production")
        with credentials.guard("nightly-enrich", budget=500) as run:
            ...

    A key or a URL that cannot be used is told when it is first used, as ConfigurationError.
    """

    _block_type_name = "API Mall Credentials"
    _block_type_slug = "apimall-credentials"
    _description = "A key of API Mall: check the balance before a batch, hold its budget, report what it consumed."

    # A rejected block shows no input: what is in the wrong field may well be the key.
    model_config: ClassVar[ConfigDict] = ConfigDict(hide_input_in_errors=True)

    key: SecretStr = Field(description="The API key.")
    base_url: str = Field(default="https://gateway.apimall.ai", title="Base URL", description="The gateway.")
    account: str | None = Field(
        default=None, description="The account's name, where several keys draw on one pool of credits."
    )

    def source(self) -> ApiMall:
        """The balance source, for `guard(source=...)`; one for each key and gateway in a process."""
        return _source(self.key.get_secret_value(), self.base_url)

    def guard(self, name: str | None = None, **options: Any) -> guard:
        """A guard on this account. The arguments are those of `creditguard.guard`."""
        return guard(name, **{"source": self.source(), "account": self.account, **options})

    def balance(self) -> Balance:
        """The balance now, within CREDITGUARD_TIMEOUT. Raises BalanceUnavailable."""
        return self.source().read(_settings.current().timeout)

    async def abalance(self) -> Balance:
        """As `balance`, without blocking the event loop."""
        return await to_thread(self.source().read, _settings.current().timeout)


@lru_cache(maxsize=64)
def _source(key: str, base_url: str) -> ApiMall:
    # Guards share requests and ledger connections by their source object, and a block is loaded anew by each task.
    return ApiMall(key, base_url)
