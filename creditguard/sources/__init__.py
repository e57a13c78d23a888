"""Where balances are read. API Mall is the first source; anything that fits `BalanceSource` may stand beside it."""
