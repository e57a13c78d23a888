"""The Prefect block that keeps an API Mall key: encrypted on Prefect's server, masked wherever it is shown."""

from __future__ import annotations

from asyncio import to_thread
from typing import TYPE_CHECKING, Any, ClassVar

from prefect.blocks.abstract import CredentialsBlock
from pydantic import ConfigDict, Field, HttpUrl, SecretStr

from creditguard import settings as _settings
from creditguard.errors import ConfigurationError
from creditguard.prefect.guards import guard
from creditguard.rules.secret import SecretText
from creditguard.rules.values import Balance
from creditguard.settings.options import hide_password
from creditguard.sources.apimall import ApiMall, shared
from creditguard.sources.apimall_checks import DEFAULT_BASE_URL, check_base_url, check_key

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from creditguard.settings.options import GuardOptions


class ApiMallCredentials(CredentialsBlock):  # type: ignore[misc,unused-ignore]
    """A key of API Mall, for guards in flows.

        credentials = ApiMallCredentials.load("production")
        with credentials.guard("nightly-enrich", budget=500) as run:
            ...

    A key or a URL that cannot be used is told when it is first used, as ConfigurationError.
    """

    _block_type_name = "API Mall Credentials"
    _block_type_slug = "apimall-credentials"
    _documentation_url = HttpUrl("https://www.apimall.ai/docs/core-apis/account/get-account-balances")
    # The picture that Prefect has for its own secrets.
    _logo_url = HttpUrl(
        "https://raw.githubusercontent.com/PrefectHQ/prefect/420d0d6a78bb6df1fc18bcf188fdad43c1d22ea9/assets/block-logos/secret.png"
    )
    _description = "A key of API Mall: check the balance before a batch, hold its budget, report what it consumed."

    # A rejected block shows no input: what is in the wrong field may well be the key.
    model_config: ClassVar[ConfigDict] = ConfigDict(hide_input_in_errors=True)

    key: SecretStr = Field(description="The API key.")
    base_url: str = Field(default=DEFAULT_BASE_URL, title="Base URL", description="The gateway.")
    account: str | None = Field(
        default=None, description="The account's name, where several keys draw on one pool of credits."
    )

    def get_client(self, *_: Any, **__: Any) -> ApiMall:
        """The balance source, by the name that Prefect's credentials blocks have for it."""
        return self.source()

    def source(self) -> ApiMall:
        """The balance source, for `guard(source=...)`; one for each key and gateway in a process. Raises ConfigurationError."""
        # The key itself gets no name here, which a traceback would show.
        texts = {"key": self.key, "account": SecretStr(self.account or "")}
        for name, text in texts.items():
            if "://" in text.get_secret_value():
                message = f"{name} of the block holds an address: that of the gateway belongs into base_url"
                raise ConfigurationError(message, name)
        check_key(self.key.get_secret_value(), "key of the block")
        return shared(SecretText(self.key.get_secret_value()), check_base_url(self.base_url, "base_url of the block"))

    def guard(self, name: str | None = None, **options: Unpack[GuardOptions]) -> guard:
        """A guard on this account. The arguments are those of `creditguard.guard`."""
        hide_password(options)
        options.setdefault("source", self.source())
        options.setdefault("account", self.account)
        return guard(name, **options)

    def balance(self) -> Balance:
        """The balance now, within CREDITGUARD_TIMEOUT. Raises BalanceUnavailable."""
        return self.source().read(_settings.current().timeout)

    async def abalance(self) -> Balance:
        """As `balance`, without blocking the event loop."""
        return await to_thread(self.source().read, _settings.current().timeout)
