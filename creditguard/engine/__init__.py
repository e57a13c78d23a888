"""The engine performs flows: it drives them in threads of its own, shares readings, renews leases, watches balances and
stops jobs. Callers only wait.
"""
