"""Where balances are read. API Mall is the first source; anything that fits `BalanceSource` may stand beside it.

`apimall` is the source, `apimall_checks` and `apimall_answers` its rules, `retries` when to ask again; `transport` sends.
"""
